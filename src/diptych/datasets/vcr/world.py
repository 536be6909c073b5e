"""A miniature world in the official layout of VCR: questions about the colors and kinds of objects.

Wrong choices are the right ones of other questions of the match fold, as in VCR, so that the text alone tells
nothing. As in cartoons, persons look like cats or trees: only the region that a text names tells their color
and kind.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from diptych.datasets.base import require_size
from diptych.datasets.coco import NAMES
from diptych.datasets.vcr.records import CHOICES, PEOPLE
from diptych.features import write_store
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world import Scene, Thing, captions, draw_scene, new_scene, observe
from diptych.world.render import CLASSES, FEATURE_DIM
from diptych.world.scene import COLORS
from diptych.world.shapes import SHAPES

SMALLEST, LARGEST = 40, 200_000
EACH = 2  # questions about a picture
VOCABULARY_SIZE = 1200
QUALITY = 90  # of JPEG
ROUND = 12  # corners of the polygon of an ellipse
LIKELY = ("likely", "possible", "unlikely")
Words = list[str | list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about one person of a picture.

    Args:
        picture: number of the picture; `number` counts its questions.
        thing: number of the thing in `objects`.
    """

    split: str
    picture: int
    number: int
    scene: Scene
    thing: int

    @property
    def key(self) -> str:
        """Path of the picture below `vcr1images`, without suffix."""
        # As the real names, with `@`, which not every program expects in a path.
        film = f"lsmdc_{self.picture % 5:04d}_A_FILM"
        return f"{film}/{film}_00.{self.picture:05d}@{self.picture % 3}"

    @property
    def right(self) -> Thing:
        return self.scene.things[self.thing]


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write annotations, pictures, metadata, regions and a vocabulary; same seed, same bytes.

    Args:
        size: number of questions.

    Returns:
        Number of questions of each split.

    Raises:
        ConfigError: the size or the seed is invalid.
    """
    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="questions", each=EACH)
    count = size // EACH
    held = max(4, count // 8)
    ends = {"train": count - 2 * held, "val": count - held, "test": count}
    asked: dict[str, list[Asked]] = {split: [] for split in ends}
    for picture in range(count):
        split = next(name for name, end in ends.items() if picture < end)
        asked[split] += _ask(np.random.default_rng([seed, 2, picture]), split, picture)
    counts, texts = {}, list[str]()
    for split, questions in asked.items():
        records = [*_records(questions, split, seed)]
        lines = (json.dumps(record) + "\n" for record in records)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[split] = len(records)
        texts += _texts(records, questions, seed) if split == "train" else []
    place = folder / "vcr1images"
    place.mkdir()
    (place / "VERSION.txt").write_text("a miniature world\n", encoding="utf-8")
    meta = FeatureMeta(
        feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
    )
    # Each picture once: the first of its questions stands for it.
    pictures = [one for questions in asked.values() for one in questions if not one.number]
    write_store(folder / "features", _pictures(place, pictures, seed, progress), meta)
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    return counts


def _ask(generator: Generator, split: str, picture: int) -> Iterator[Asked]:
    """Two questions about persons of a picture: the names of other things would tell their kinds."""
    while True:
        scene = new_scene(generator, "warm" if generator.random() < 0.5 else "cool")
        if sum(thing.kind not in NAMES for thing in scene.things) >= EACH:
            break
    if picture % 3:  # persons first is usual, but no rule
        persons_first = sorted(scene.things, key=lambda thing: thing.kind in NAMES)
        scene = Scene(things=tuple(persons_first), size=scene.size, backdrop=scene.backdrop)
    persons = [place for place, thing in enumerate(scene.things) if thing.kind not in NAMES]
    for number, thing in enumerate(generator.permutation(persons)[:EACH].tolist()):
        yield Asked(split=split, picture=picture, number=number, scene=scene, thing=thing)


def _records(asked: Sequence[Asked], split: str, seed: int) -> Iterator[dict[str, Any]]:
    folds = 2 if split == "train" and len(asked) >= 16 else 1
    members = [[place for place in range(len(asked)) if place % folds == fold] for fold in range(folds)]
    for place, one in enumerate(asked):
        generator = np.random.default_rng([seed, 5, one.picture, one.number])
        fold, index = place % folds, place // folds
        others = [asked[number].right for number in members[fold]]
        # Answers are colors and rationales are kinds, so the words of one do not tell the other.
        kinds = ([thing.color for thing in others], [thing.kind for thing in others])
        answers, rationales = (_choices(generator, index, right) for right in kinds)
        record = {
            "movie": one.key.partition("/")[0],
            "objects": [NAMES.get(thing.kind, "person") for thing in one.scene.things],
            "img_fn": f"{one.key}.jpg",
            "metadata_fn": f"{one.key}.json",
            "img_id": f"{split}-{one.picture}",
            "question_number": one.number,
            "annot_id": f"{split}-{place}",
            "question": _question(generator, one, place),
            "answer_choices": [[[one.thing], "is", color, "."] for color, _ in answers],
            "rationale_choices": [[[one.thing], "looks", "like", "a", kind, "."] for kind, _ in rationales],
        }
        if split != "test":
            record |= _labels(record, answers, rationales, index)
            record |= {"match_fold": f"{split}-{fold}", "match_index": index}
            record |= {"answer_likelihood": LIKELY[place % 3], "interesting_scores": [place % 3 - 1]}
        yield record


def _choices(generator: Generator, index: int, right: Sequence[str]) -> list[tuple[str, int]]:
    """The right word and three words of other questions with their indices, in random order."""
    chosen = {right[index]: index}
    for other in generator.permutation(len(right)).tolist():
        if len(chosen) < CHOICES:
            chosen.setdefault(right[other], other)
    spare = (word for word in (*COLORS, *CLASSES) if (word in COLORS) == (right[index] in COLORS))
    while len(chosen) < CHOICES:  # a small fold repeats its answers
        chosen.setdefault(next(spare), index)
    rows = [*chosen.items()]
    return [rows[place] for place in generator.permutation(CHOICES)]


def _labels(
    record: dict[str, Any], answers: list[tuple[str, int]], rationales: list[tuple[str, int]], index: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for what, rows, place in (("answer", answers, 2), ("rationale", rationales, 4)):
        sources = [source for _, source in rows]
        words = [choice[place] for choice in record[f"{what}_choices"]]
        # The choice that is the question's own; in a small fold, spare words have the same source.
        label = next(row for row, (word, source) in enumerate(rows) if source == index and word == words[row])
        order = iter(range(1, CHOICES))
        found |= {
            f"{what}_label": label,
            f"{what}_sources": sources,
            f"{what}_match_iter": [0 if row == label else next(order) for row in range(CHOICES)],
            f"{what}_orig": " ".join(_as_written(word) for word in record[f"{what}_choices"][label]),
        }
    return found | {"question_orig": " ".join(map(_as_written, record["question"]))}


def _as_written(token: str | list[int]) -> str:
    """People wrote numbers from 1."""
    return token if isinstance(token, str) else ", ".join(str(number + 1) for number in token)


def _question(generator: Generator, one: Asked, place: int) -> Words:
    others = [
        number for number in generator.permutation(len(one.scene.things)).tolist() if number != one.thing
    ]
    match place % 5:
        case 0:  # names several
            return ["Near", [*others[:2]], ",", "what", "color", "is", [one.thing], "?"]
        case 1:  # names none
            return ["Which", "of", "these", "is", "true", "?"]
        case 2:  # names one twice
            return ["Look", "at", [one.thing], ":", "what", "color", "is", [one.thing], "?"]
        case _:
            return ["What", "color", "is", [one.thing], "?"]


def _texts(records: Sequence[dict[str, Any]], asked: Sequence[Asked], seed: int) -> Iterator[str]:
    generator = np.random.default_rng([seed, 4])
    yield from (*PEOPLE, *NAMES.values(), "and")
    for record, one in zip(records, asked, strict=True):
        yield from captions(generator, one.scene)
        for words in (record["question"], *record["answer_choices"], *record["rationale_choices"]):
            yield " ".join(word for word in words if isinstance(word, str))


def _pictures(
    place: Path, asked: Sequence[Asked], seed: int, progress: Progress | None
) -> Iterator[tuple[str, Regions]]:
    """Write pictures and metadata, and yield the key and the regions of each picture."""
    for done, one in enumerate(asked, 1):
        path = place / f"{one.key}.jpg"
        path.parent.mkdir(exist_ok=True)
        draw_scene(one.scene).save(path, quality=QUALITY)
        regions = observe(one.scene, np.random.default_rng([seed, 3, one.picture]))
        scores = [1 - 0.01 * number for number in range(len(regions))]
        boxes = np.column_stack([regions.boxes, scores])
        metadata = {
            "boxes": boxes.round(4).tolist(),
            "segms": [_outline(thing, one.scene.size) for thing in one.scene.things],
            "names": [NAMES.get(thing.kind, "person") for thing in one.scene.things],
            "width": one.scene.size[0],
            "height": one.scene.size[1],
        }
        path.with_suffix(".json").write_text(json.dumps(metadata) + "\n", encoding="utf-8")
        yield one.key, regions
        if progress is not None:
            progress(EACH * done, EACH * len(asked))


def _outline(thing: Thing, size: tuple[int, int]) -> list[list[list[float]]]:
    """Polygons of the painted parts of a thing, in pixels of a picture of this size."""
    polygons = []
    for shape, paint, numbers in SHAPES[thing.kind]:
        corners = [*zip(numbers[::2], numbers[1::2], strict=True)]
        if paint != "body" or shape in ("line", "ring", "arc"):
            continue
        if shape in ("ellipse", "chord"):
            (left, top), (right, bottom) = corners
            turns = [2 * pi * number / ROUND for number in range(ROUND)]
            corners = [
                (
                    (left + right + (right - left) * cos(turn)) / 2,
                    (top + bottom + (bottom - top) * sin(turn)) / 2,
                )
                for turn in turns
            ]
        if shape == "box":
            (left, top), (right, bottom) = corners
            # Around the box, as a polygon runs.
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        x1, y1, x2, y2 = thing.box
        placed = [(x1 + (x2 - x1) * x, y1 + (y2 - y1) * y) for x, y in corners]
        polygons.append(np.array(placed).clip(0, size).round(2).tolist())
    return polygons
