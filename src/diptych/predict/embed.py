"""Vectors of examples: what a model makes of each, before a task decides.

A part is a field of `Encoding` with one vector per row (`pooled`, `joint_image`, ...), or `task`: the vector
that the task's head compares, for tasks with a method `embed` such as `Rgcl`; or `states`: the mean state of
the tokens beside that of the regions, which keep what a trained pooled vector has dropped.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader

from diptych.data import Collate, Row, pad
from diptych.errors import ConfigError
from diptych.predict.predictor import Predictor
from diptych.types import (
    Batch,
    Dataset,
    Encoding,
    Example,
    FeatureMeta,
    Progress,
    RegionSource,
    VisionLanguageModel,
)

JOINT = ("joint_image", "joint_text")
TOWERS = ("tower_image", "tower_text")


def own_parts(predictor: Predictor) -> tuple[str, ...]:
    """The parts that a model has: those of its two towers, else its pooled vector, and that of its task."""
    model = predictor.model
    # Only dual encoders have a joint space; their pooled vector is made of these parts.
    found: tuple[str, ...] = (*JOINT, *TOWERS) if getattr(model, "joint_dim", 0) else ("pooled",)
    # Of frozen encoders, such as those of `diptych fetch --bundle`, what follows them is random or a task's.
    if set(getattr(model, "frozen", ())) == {"image", "text"} and "pooled" in found:
        found = TOWERS
    return (*found, "task") if hasattr(predictor.task, "embed") else found


def case_part(predictor: Predictor) -> str:
    """The part by which examples are compared as cases: what the task has learned to compare, else pooled."""
    return "task" if hasattr(predictor.task, "embed") else "pooled"


def embed_dataset(
    predictor: Predictor,
    dataset: Dataset,
    parts: Sequence[str],
    *,
    features: RegionSource | None = None,
    images: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Float[ndarray, "N _"]]:
    """Return the vectors of every example by part, in the order of the data set.

    Args:
        parts: names of parts, see the module.
        features: as for `Predictor.predict_dataset`, like the other arguments.

    Raises:
        ConfigError: the model has no such part, an example has several pairs, or vectors are not finite.
        MissingFeatures: images have no regions.
    """
    sources = predictor.sources(dataset, features=features, images=images)
    batches = predictor.batches(dataset, sources, batch_size)
    loader: DataLoader[Example] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=Collate(predictor.processor, sources=sources),
        num_workers=workers,
    )
    found: dict[str, ndarray] = {}
    done = 0
    # The loader keeps the order of its batches, also with several workers.
    for indices, vectors in zip(batches, embed_batches(predictor, loader, parts), strict=True):
        for part, rows in vectors.items():
            # Batches are sorted by length; each row goes to the place of its example.
            whole = found.setdefault(part, np.empty((len(dataset), rows.shape[1]), np.float32))
            whole[indices] = rows
        done += len(indices)
        if progress is not None:
            progress(done, len(dataset))
    return found


def embed_batches(
    predictor: Predictor, batches: Any, parts: Sequence[str]
) -> Iterator[dict[str, Float[ndarray, "B _"]]]:
    """Yield the vectors of one batch at a time; see `embed_dataset`."""
    task = cast(Any, predictor.task)
    reads = frozenset(parts) - {"task", "states"} | (task.reads if "task" in parts else frozenset())
    reads |= {"text", "regions"} if "states" in parts else frozenset()
    model = cast(VisionLanguageModel, predictor.model)
    for batch in batches:
        batch = cast(Batch, batch).to(predictor.device)
        if batch.pairs != 1:
            raise ConfigError(
                f"example {batch.ids[0]} has {batch.pairs} pairs; only single ones are embedded."
            )
        bf16 = predictor.precision == "bf16"
        # A block and no decorator, which would leave a generator after its first batch.
        with torch.inference_mode(), torch.autocast(predictor.device.type, torch.bfloat16, enabled=bf16):
            encoding = model(batch.inputs, reads=reads)
            vectors = {part: _part(part, encoding, task, batch) for part in parts}
        if odd := [part for part, one in vectors.items() if not one.isfinite().all()]:
            raise ConfigError(
                f"{odd[0]} in the batch of {batch.ids[0]!r} is not finite. Check that the weights are finite."
            )
        # NumPy has no bfloat16.
        yield {part: one.float().cpu().numpy() for part, one in vectors.items()}


def _part(part: str, encoding: Encoding, task: Any, batch: Batch) -> Float[Tensor, "B _"]:
    vectors: Tensor | None
    if part == "task":
        vectors = task.embed(encoding, batch) if hasattr(task, "embed") else None
    elif part == "states":
        vectors = _mean_states(encoding, batch)
    else:
        vectors = getattr(encoding, part, None)
    # States of tokens have three axes, and are no vector of an example.
    if vectors is None or vectors.ndim != 2:
        raise ConfigError(f"the model has no vectors {part!r}; expected others, such as 'pooled'.")
    return vectors


def _mean_states(encoding: Encoding, batch: Batch) -> Float[Tensor, "B _"] | None:
    """The mean states of both sides, without padding; None for a model without states."""
    sides = ((encoding.text, batch.inputs.text), (encoding.regions, batch.inputs.regions))
    means = []
    for states, given in sides:
        if states is not None and given is not None:
            mask = given.mask[..., None].to(states.dtype)
            means.append((states * mask).sum(1) / mask.sum(1).clamp(min=1))
    return torch.cat(means, dim=1) if means else None


def embed_texts(
    predictor: Predictor, texts: Sequence[str], parts: Sequence[str], *, batch_size: int = 32
) -> dict[str, Float[ndarray, "N _"]]:
    """Return the vectors of texts without pictures, for models with parts that see the text alone.

    Raises:
        ConfigError: the model reads no text, or a part needs a picture.
    """
    processor = predictor.processor
    text = processor.text
    # The pooled vector and the task's need the picture, too.
    if text is None or (odd := [part for part in parts if not part.endswith("_text")]):
        raise ConfigError(
            f"texts without pictures have no vectors {', '.join(odd if text else parts)} with this model; "
            "use a dual encoder such as clip_b32, or give the pictures, too."
        )
    rows = [Row(tokens=text.encode(one, max_tokens=processor.max_tokens)) for one in texts]
    batches = [
        Batch(
            ids=tuple(map(str, range(start, start + len(some)))),
            inputs=pad(some, pad_id=text.pad_id, labels=False),
        )
        for start in range(0, len(rows), batch_size)
        if (some := rows[start : start + batch_size])
    ]
    found = [*embed_batches(predictor, batches, parts)]
    return {part: np.concatenate([one[part] for one in found]) for part in parts}


def described(name: str, checksum: str, widths: Mapping[str, int], *, dtype: str = "float32") -> FeatureMeta:
    """Description of a store of embeddings: the model by name and checksum, and the parts of a vector."""
    return FeatureMeta(
        feature_dim=sum(widths.values()),
        detector=f"{name} {checksum[:16]}",
        box_rule="1",
        dtype=dtype,
        # So that a reader can cut the rows into their parts again.
        parts=tuple(f"{part}:{width}" for part, width in widths.items()),
    )


def side_by_side(vectors: Mapping[str, Float[ndarray, "N _"]]) -> Float[ndarray, "N D"]:
    """The parts of every item in one row, as a store holds them."""
    return np.concatenate([*vectors.values()], axis=1)
