"""A miniature world in the layout of Conceptual Captions."""

import json
import zipfile
from pathlib import Path

import numpy as np
from numpy import ndarray

from diptych.datasets.base import require_size
from diptych.datasets.scene_world import write_scenes
from diptych.features import FeatureStore
from diptych.features.fields import encode, record_of
from diptych.types import Progress
from diptych.world import captions, new_scene

SMALLEST, LARGEST = 20, 200_000
TABLES = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}
LAYOUT = "image_id image_w image_h num_boxes boxes classes features"
DEAD = 0.1  # share of addresses without a picture


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the tables (below `tables/`), JSON lines, pictures, regions in both forms, and a vocabulary.

    Some addresses are dead, so the numbers of the pictures have gaps. Those of `val` go on behind those of
    `train`, so that one feature store holds both.

    Args:
        size: number of rows of both tables.

    Returns:
        Number of captions of each split.
    """
    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="rows")
    rows, scenes, texts = dict[str, list[tuple[str, str]]](), [], {}
    for number in range(size):
        generator, key = np.random.default_rng([seed, 2, number]), f"{number:08d}"
        scene = new_scene(generator, "warm" if generator.random() < 0.5 else "cool")
        texts[key] = captions(generator, scene)[0].lower()
        split = "train" if number < size * 5 // 6 else "val"
        rows.setdefault(split, []).append((key, texts[key]))
        if generator.random() >= DEAD:
            scenes.append((key, number, scene))
    alive = {key for key, _, _ in scenes}
    splits = {key: split for split, some in rows.items() for key, _ in some}
    write_scenes(
        folder,
        scenes,
        seed=seed,
        texts=texts.values(),
        progress=progress,
        place=lambda key: f"{splits[key]}_image/{key}.jpg",
        soft=True,
    )
    store = FeatureStore(folder / "features")
    for split, some in rows.items():
        # Line 0 of the official table of `val` would be the first one of the world's.
        blank = "".join("\n" for _ in range(int(some[0][0])))
        lines = "".join(f"{text}\thttp://example.org/{key}.jpg\n" for key, text in some)
        (folder / "tables").mkdir(exist_ok=True)
        (folder / "tables" / TABLES[split]).write_text(blank + lines, encoding="utf-8")
        listed = [(key, text) for key, text in some if key in alive]
        records = [_record(split, key, text) for key, text in listed]
        (folder / f"{split}_frcnn.json").write_text("".join(records), encoding="utf-8")
        _pack(folder / f"{split}_frcnn.zip", store, [key for key, _ in listed])
    return {split: sum(key in alive for key, _ in some) for split, some in rows.items()}


def _record(split: str, key: str, text: str) -> str:
    record = {
        "image": f"{split}_image.zip@/{key}.jpg",
        "caption": text.split(),
        "frcnn": f"{split}_frcnn.zip@/{key}.json",
    }
    return json.dumps(record) + "\n"


def _pack(path: Path, store: FeatureStore, keys: list[str]) -> None:
    """Write the regions as VL-BERT has them: one JSON per picture in an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for key in keys:
            record = {
                name: encode(value).decode() if isinstance(value, ndarray) else value
                for name, value in record_of(key, store[key], LAYOUT).items()
            }
            # ZipInfo without a time: the present one would differ
            archive.writestr(zipfile.ZipInfo(f"{key}.json"), json.dumps(record))
