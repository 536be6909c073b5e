"""What a model says to examples, for a memory: its probabilities, and the vectors by which cases compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.data import Row
from diptych.errors import ConfigError
from diptych.files import require_file
from diptych.memory.recall import Recall, recall_all
from diptych.memory.store import Memory
from diptych.predict import (
    JOINT,
    Listed,
    Predictor,
    Verdict,
    bundle_checksum,
    case_part,
    embed_batches,
    embed_dataset,
    load,
    own_parts,
    regions_of_run,
)
from diptych.tasks import Classify
from diptych.types import Dataset, Progress, RegionSource, VisionLanguageModel

Place = Path | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers of a model to N examples, in their order.

    Args:
        scores: probabilities by class.
        vectors: by which the examples are compared with cases.
    """

    ids: tuple[str, ...]
    scores: Float[ndarray, "N C"]
    vectors: Float[ndarray, "N D"]


def require_labels(predictor: Predictor) -> tuple[str, ...]:
    """Return the classes of a model that gives each example one label.

    Raises:
        ConfigError: it does something else.
    """
    if not isinstance(predictor.task, Classify):
        raise ConfigError(
            f"a memory is of examples with one label each, but the task of the model is "
            f"{type(predictor.task).__name__}; use a model with the task classify."
        )
    return predictor.task.labels


def usual_parts(predictor: Predictor) -> tuple[str, ...]:
    """The vectors by which a model's examples are compared, if nothing else is said.

    What the task has learned to compare; of a dual encoder both sides of its joint space; of a model with
    states of tokens or regions their means; else the pooled vector, which often keeps little but the classes.
    """
    part = case_part(predictor)
    if part == "pooled" and {*JOINT} <= {*own_parts(predictor)}:
        return JOINT
    model = cast(VisionLanguageModel, predictor.model)
    return ("states",) if part == "pooled" and (model.text_dim or model.region_dim) else (part,)


def ask(
    predictor: Predictor,
    dataset: Dataset,
    parts: Sequence[str],
    *,
    features: RegionSource | None = None,
    images: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Asked:
    """Score and embed the examples of a split, or a `Listed` of some.

    Args:
        parts: of the vectors, see `diptych.predict.embed`; each gets the length 1, and they lie side by side.
        features: as for `Predictor.predict_dataset`, like the other arguments.

    Raises:
        ConfigError: the model has no such part, it does not give one label, or examples have several pairs.
    """
    require_labels(predictor)
    inputs: dict[str, Any] = {"features": features, "images": images, "batch_size": batch_size}
    found = predictor.predict_dataset(dataset, progress=progress, **inputs)
    vectors = _in_one(embed_dataset(predictor, dataset, parts, **inputs))
    assert found.scores is not None  # every classifier has them
    return Asked(ids=found.ids, scores=found.scores, vectors=vectors)


def vectors_of(
    predictor: Predictor, examples: Sequence[Sequence[Row]], parts: Sequence[str]
) -> Float[ndarray, "N D"]:
    """The vectors of a batch of examples whose rows the processor has made; see `ask`."""
    [vectors] = embed_batches(predictor, [predictor.batch_of(examples)], parts)
    return _in_one(vectors)


def _in_one(vectors: Mapping[str, Float[ndarray, "N _"]]) -> Float[ndarray, "N D"]:
    # Equal lengths, or the part with the larger numbers would decide alone.
    units = [
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in vectors.values()
    ]
    return np.concatenate(units, axis=1)


def ask_meme(
    source: Path,
    memory: Memory,
    *,
    image: Path,
    text: str,
    features: Place = None,
    more_features: Place = None,
    policies: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "32",
) -> tuple[Verdict, Recall]:
    """Score one picture and its text by a run or a bundle and a memory.

    Args:
        features: a feature store, by default that of training; `more_features`, the second one.
        policies: those of the memory that vote; None means all.

    Returns:
        The verdict with the memory, and because of which cases.

    Raises:
        ConfigError: the memory is of another model.
    """
    memory.require_model(bundle_checksum(source))
    predictor = load(source, device=device, precision=precision)
    labels = require_labels(predictor)
    pictures = {image.stem: require_file(image, "a picture file")}
    example = predictor.example(image.stem, keys=(image.stem,), text=text)
    store = regions_of_run(predictor, source, pictures, features, more_features)
    asked = ask(predictor, Listed([example]), memory.parts, features=store, images=pictures)
    recall = recall_all(memory, asked.vectors, asked.scores, policies=policies)[0]
    return verdict_of(labels, recall.scores, predictor), recall


def verdict_of(labels: Sequence[str], scores: Mapping[str, float], predictor: Predictor) -> Verdict:
    """The verdict on scores that are not the task's own, by its threshold."""
    threshold: float = getattr(predictor.task, "threshold", 0.5)
    answer = max(labels, key=lambda label: scores[label])
    if len(labels) == 2:
        answer = labels[int(scores[labels[1]] >= threshold)]
    return Verdict(answer=answer, scores=scores)


def case_id(text: str, picture: Path | None) -> str:
    """An id that follows from the content, so that the same example is not taken twice."""
    return content_id(text, b"" if picture is None else require_file(picture, "a picture file").read_bytes())


def content_id(text: str, picture: bytes) -> str:
    """The same of an encoded picture."""
    # A text of JSON may hold half of a surrogate pair, which is no UTF-8.
    return sha256(b"\0".join([text.encode("utf-8", "surrogatepass"), picture])).hexdigest()[:12]
