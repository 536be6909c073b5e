"""A miniature world in the format of LXMERT's pre-training data."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from diptych.datasets.answer_table import PRETRAINING
from diptych.datasets.base import require_size
from diptych.datasets.miniature import VOCABULARY_SIZE
from diptych.features import write_store
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world import Scene, ask, captions, detect, draw_scene, new_scene
from diptych.world.render import CLASSES, FEATURE_DIM
from diptych.world.scene import COLORS, KINDS

SMALLEST, LARGEST = 20, 200_000
# Of eight images. In the original's feature file of val2014 the images of minival come first, too.
SHARES = {"mscoco_train": 4, "mscoco_minival": 1, "mscoco_nominival": 1, "vgnococo": 2}
COCO = {"mscoco_train": "train2014", "mscoco_minival": "val2014", "mscoco_nominival": "val2014"}
EACH = 3  # questions of a category about one image
SPOKEN = {"2": "two", "3": "Three", "4": "four.", "5": "the five"}  # spellings that normalization unites
OTHERS = ("nothing in particular", "a thing of beauty")  # answers that no table has


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the four files, the answer table, pictures, regions and a vocabulary.

    Some labels are empty, spelled differently, or outside the table, as in the original's files.

    Args:
        size: number of images.

    Returns:
        Number of sentences of each file.
    """
    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="images")
    target = folder / "lxmert"
    target.mkdir()
    parts = _parts(size)
    scenes = {key: _scene(seed, number) for number, key in enumerate(chain.from_iterable(parts.values()))}
    records = {
        name: [_record(np.random.default_rng([seed, 2, int(key[-12:])]), key, scenes[key]) for key in keys]
        for name, keys in parts.items()
    }
    for name, some in records.items():
        (target / f"{name}.json").write_text(json.dumps(some) + "\n", encoding="utf-8")
    (target / PRETRAINING).write_text(json.dumps(_table(), indent=1) + "\n", encoding="utf-8")
    meta = FeatureMeta(
        feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
    )
    write_store(folder / "features", _pictures(folder, scenes, seed, progress), meta)
    # Without both parts of val (`nominival` has `minival` in it), so some of their words are unknown.
    texts = [text for name, some in records.items() if "minival" not in name for text in _sentences(some)]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    return {name: sum(1 for _ in _sentences(some)) for name, some in records.items()}


def _parts(size: int) -> dict[str, list[str]]:
    """Image keys of each file, in the forms of COCO and of Visual Genome; numbers grow over all files."""
    counts = {name: size * share // 8 for name, share in SHARES.items()}
    # What rounding left over.
    counts["mscoco_train"] += size - sum(counts.values())
    found, first = dict[str, list[str]](), 1
    for name, count in counts.items():
        numbers = range(first, first + count)
        prefix = f"COCO_{COCO[name]}_" if name in COCO else ""
        found[name] = [f"{prefix}{number:012d}" if prefix else f"{2_300_000 + number}" for number in numbers]
        first += count
    return found


def _scene(seed: int, number: int) -> Scene:
    generator = np.random.default_rng([seed, 1, number])
    return new_scene(generator, "warm" if generator.random() < 0.5 else "cool")


def _pictures(
    folder: Path, scenes: dict[str, Scene], seed: int, progress: Progress | None
) -> Iterator[tuple[str, Regions]]:
    """Write the picture of every scene, and yield its key and regions."""
    for name in (*COCO.values(), "VG_100K"):
        (folder / name).mkdir(exist_ok=True)
    for number, (key, scene) in enumerate(scenes.items()):
        place = key.split("_")[1] if key.startswith("COCO_") else "VG_100K"
        draw_scene(scene).save(folder / place / f"{key}.jpg", quality=90)
        yield key, detect(scene, np.random.default_rng([seed, 3, number]))
        if progress is not None:
            progress(number + 1, len(scenes))


def _record(generator: Generator, key: str, scene: Scene) -> dict[str, Any]:
    """Captions and questions about COCO's images, descriptions and questions about Visual Genome's."""
    coco = key.startswith("COCO_")
    described = [sentence for _ in range(2) for sentence in captions(generator, scene)]
    questions = ask(generator, scene)
    categories = ("vqa", "gqa") if coco else ("visual7w", "gqa")
    asked = {name: questions[place * EACH : (place + 1) * EACH] for place, name in enumerate(categories)}
    return {
        "img_id": key,
        "sentf": {
            "mscoco" if coco else "vg": list(dict.fromkeys(described))[:5],
            **{name: [one.text for one in some] for name, some in asked.items()},
        },
        "labelf": {
            name: [_label(generator, one.answer, soft=name == "vqa") for one in some]
            for name, some in asked.items()
        },
    }


def _label(generator: Generator, answer: str, *, soft: bool) -> dict[str, int | float]:
    chance = generator.random()
    if chance < 0.03:
        return {}
    if chance < 0.06:
        # Answers outside the table: readers keep the sentence and drop the target.
        return {OTHERS[int(chance > 0.045)]: 1}
    if chance < 0.1 and answer in SPOKEN:
        # Both spellings become one answer, whose last score counts.
        return {SPOKEN[answer]: 0.3, answer: 1}
    if chance < 0.15:
        return {f"{answer.capitalize()}.": 1}
    return {answer: 1, OTHERS[0]: 0.3} if soft and chance < 0.3 else {answer: 1}


def _table() -> list[dict[str, Any]]:
    numbers = [str(number) for number in range(1, 10)]
    names = sorted({*KINDS, *COLORS, *numbers, "yes", "no"})
    return [{"ans": name, "dsets": ["vqa", "gqa", "visual7w"]} for name in names]


def _sentences(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    return (text for record in records for texts in record["sentf"].values() for text in texts)
