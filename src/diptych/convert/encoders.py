"""Two fetched encoders as one bundle, so that `diptych embed` computes the vectors of pictures and texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diptych.bundle import write_bundle
from diptych.convert.families import load_towers
from diptych.errors import ConfigError
from diptych.files import atomic_folder, require_new
from diptych.models.concat import Concat
from diptych.nodes import build

# The builder of each pair, and how its pictures are normalized.
HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
PAIRS = {
    ("minilm", "efficientnet_lite0"): ("concat_minilm_efficientnet", HALVES),
    ("minilm", "mobilenet_v2"): ("concat_minilm_mobilenet", IMAGENET),
}


def pair_encoders(
    found: Mapping[str, Path], out: Path, *, random: int | None = None, overwrite: bool = False
) -> None:
    """Write a bundle of a text encoder and an image encoder.

    Args:
        found: what `fetch_listed` returned, by name.
        random: seed of random weights in place of the published ones, for a control with the same
            architecture, vocabulary and pictures.

    Raises:
        ConfigError: the names are no such pair, or `out` exists.
    """
    names = tuple(sorted(found, key=lambda name: name != "minilm"))
    if names not in PAIRS:
        pairs = "; ".join(" and ".join(pair) for pair in PAIRS)
        raise ConfigError(f"there is no bundle of {' and '.join(names)}; expected {pairs}.")
    require_new(out, overwrite=overwrite, kind="a bundle")
    builder, values = PAIRS[names]
    node: dict[str, Any] = {"_target_": f"diptych.models.{builder}"}
    text, image = (found[name] for name in names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random or 0)
        model = build(node)
    assert isinstance(model, Concat)
    if random is None:
        load_towers(model, text=text, image=image)
    words = {"_target_": "diptych.text.WordPiece", "vocabulary": str(text / "vocab.txt"), "lowercase": True}
    square = {"_target_": "diptych.data.SquareTransform", "size": 224, "shape": "squash", **values}
    processor = {"_target_": "diptych.data.Processor", "text": words, "square": square, "max_tokens": 128}
    # A bundle has a task; this one is new, and embedding does not use it.
    task = {"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"]}
    whole = "+".join(names) + ("" if random is None else f" with random weights {random}")
    with atomic_folder(out, kind="a bundle", overwrite=overwrite) as beside:
        write_bundle(
            beside,
            model=model,
            task=build(task, model=model),
            nodes={"model": node, "processor": processor, "task": task},
            provenance={"name": whole},
        )
