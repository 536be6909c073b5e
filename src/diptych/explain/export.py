"""Writes attention maps as NumPy arrays with a JSON file of names, as VL-BERT's `viz` does."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diptych.explain.attention import ExampleMaps, MapLayer, PairMaps
from diptych.files import atomic_folder

FORMAT = "diptych.attention/1"
KIND = "a folder of attention maps"


def export_maps(examples: Sequence[ExampleMaps], folder: Path | str, *, overwrite: bool = False) -> None:
    """Write arrays of shape [layers, heads, queries, keys], and the names of all positions to `names.json`.

    A model of one stream has one array, `both-both.npy`. Others have one for each pair of sides, such as
    `text-regions.npy`, in which the text looks at the regions. If there are several pairs, a number comes
    first.

    Raises:
        ConfigError: `folder` exists, and `overwrite` is False or it holds something else.
    """
    pairs = [(example, pair) for example in examples for pair in example.pairs]
    with atomic_folder(folder, kind=KIND, overwrite=overwrite) as place:
        about = []
        for number, (example, pair) in enumerate(pairs, 1):
            files = _write(pair, place, f"{number}-" if len(pairs) > 1 else "")
            names = [asdict(one) for one in pair.places]
            about.append(
                {
                    "id": example.id,
                    "answer": example.answer,
                    "text": pair.text,
                    "places": names,
                    "files": files,
                }
            )
        # ASCII, because a text may hold unpaired surrogates, which UTF-8 refuses.
        text = json.dumps({"format": FORMAT, "pairs": about}, indent=1, ensure_ascii=True)
        (place / "names.json").write_text(f"{text}\n", encoding="utf-8")


def _write(pair: PairMaps, folder: Path, prefix: str) -> list[dict[str, Any]]:
    """Write the arrays of a pair; returns for each its file and what its axes are."""
    # Maps of one pair of sides have one shape, so they stack; all have the names of the first.
    kinds: dict[str, list[MapLayer]] = {}
    for layer in pair.layers:
        kinds.setdefault("-".join(layer.sides), []).append(layer)
    files = []
    for kind, layers in kinds.items():
        name = f"{prefix}{kind}.npy"
        np.save(folder / name, np.stack([layer.weights for layer in layers]))
        files.append(
            {
                "file": name,
                "layers": [layer.name for layer in layers],
                "titles": [layer.title for layer in layers],
                "queries": layers[0].queries,
                "keys": layers[0].keys,
            }
        )
    return files
