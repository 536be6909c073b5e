"""A miniature world of statements about two pictures, in the official layout of NLVR2."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from diptych.datasets.base import require_size
from diptych.datasets.nlvr2.records import to_line
from diptych.features import write_store
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world.language import captions
from diptych.world.render import CLASSES, FEATURE_DIM, detect, draw_scene
from diptych.world.scene import COLORS, Family, Scene, new_scene

SMALLEST, LARGEST = 40, 200_000
VOCABULARY_SIZE = 1200
EACH = 8  # statements of a set: two sentences about four pairs of pictures
WORDS: dict[Family, tuple[str, ...]] = {
    "warm": ("a warm color", "a color like fire", "a hot color"),
    "cool": ("a cool color", "a color like ice", "a cold color"),
}
README = """# A miniature world of statements

Made by `diptych world --data nlvr2` with seed {seed}, in the layout of NLVR2: one JSON object per line. A
statement is True or False of two pictures. Each of its sentences is judged of up to four pairs of pictures,
and each pair appears with two sentences that contradict each other, so that neither the sentence nor the
pictures alone tell the label.

- `train`, `dev`, `test1`, `test2` `.json`, and `balanced/`, `unbalanced/` parts of the last three.
- `images/`: `SPLIT/PAIR-img0.png` on the left, `-img1.png` on the right; some of them are JPEG, as in NLVR2.
- `annotated_dev_examples.txt`: categories of the sentences of `dev`.
- `features/`: regions of a simulated detector. `vocabulary.txt`: WordPiece vocabulary of these texts.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """Four pairs of scenes, and two sentences that contradict each other about each of them.

    Args:
        truths: whether the first sentence is true of each pair; the second one is true of the others.
        category: of both sentences, a name of the official annotation.
    """

    pairs: tuple[tuple[Scene, Scene], ...]
    sentences: tuple[str, str]
    truths: tuple[bool, ...]
    category: str


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write annotations, pictures, regions and a vocabulary to an empty folder; same seed, same bytes.

    Args:
        size: number of statements, before some are left out so that groups have one, two or four pairs.

    Returns:
        Number of statements in each file.

    Raises:
        ConfigError: the size or the seed is invalid.
    """
    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="sentences", each=EACH)
    sets = [_new_set(np.random.default_rng([seed, 2, number])) for number in range(size // EACH)]
    # Whole sets: two splits must not share a sentence.
    held = max(1, len(sets) // 10)
    ends = np.cumsum([len(sets) - 3 * held, held, held, held]).tolist()
    splits = dict(zip(("train", "dev", "test1", "test2"), zip([0, *ends], ends, strict=False), strict=True))
    counts = {
        split: _write_split(folder, split, sets[start:stop], np.random.default_rng([seed, 6, start]))
        for split, (start, stop) in splits.items()
    }
    # Numbers of sets begin at 0 in every split, so the split belongs to the name of a picture.
    names = {number: split for split, (start, stop) in splits.items() for number in range(start, stop)}
    numbered = [(names[number], number - splits[names[number]][0], one) for number, one in enumerate(sets)]
    meta = FeatureMeta(
        feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
    )
    write_store(folder / "features", _pictures(folder, numbered, seed, progress), meta)
    texts = _texts(sets[: ends[0]], np.random.default_rng([seed, 4]))
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    (folder / "README.md").write_text(README.format(seed=seed), encoding="utf-8")
    return counts


def _new_set(generator: Generator) -> Set:
    """Draw scenes and sentences; the first sentence is true of two of the four pairs."""
    sides = [(left, right) for left in WORDS for right in WORDS]
    # All four combinations of warm and cool, so that a sentence is true of two of the four pairs.
    families = [sides[place] for place in generator.permutation(4)]
    kind, side, words = generator.random(), int(generator.integers(2)), int(generator.integers(3))
    if kind < 0.2:
        truths = tuple(bool(place % 2) for place in generator.permutation(4))
        pairs = tuple(_counted(generator, left_more) for left_more in truths)
        form, fills = "There are {} things in the left image than in the right image.", ("more", "fewer")
        category = "soft cardinality"
    else:
        pairs = tuple((new_scene(generator, left), new_scene(generator, right)) for left, right in families)
        if kind < 0.8:
            form = f"The largest thing in the {('left', 'right')[side]} image has {{}}."
            fills, category = (WORDS["warm"][words], WORDS["cool"][words]), "spatial relation"
            truths = tuple(family[side] == "warm" for family in families)
        else:
            form = "The largest things of the two images have {} kinds of colors."
            fills, category = ("equal", "different"), "comparison"
            truths = tuple(left == right for left, right in families)
    first, second = (form.format(fill) for fill in fills)
    return Set(pairs=pairs, sentences=(first, second), truths=truths, category=category)


def _counted(generator: Generator, left_more: bool) -> tuple[Scene, Scene]:
    """Two scenes, of which the left one has more things, or fewer."""
    # Redrawn until the counts differ; equal ones would make both sentences false.
    while True:
        drawn = [new_scene(generator, "warm" if generator.random() < 0.5 else "cool") for _ in range(2)]
        more, fewer = sorted(drawn, key=lambda scene: -len(scene.things))
        if len(more.things) > len(fewer.things):
            return (more, fewer) if left_more else (fewer, more)


def _kept(number: int, sentence: int) -> int:
    """How many pairs a sentence is judged of: of some, pairs were rejected, as by NLVR2's annotators."""
    # Consistency must be measured with groups of four, two and one.
    return {(1, 1): 2, (3, 1): 1}.get((number % 4, sentence), 4)


def _write_split(folder: Path, split: str, sets: Sequence[Set], generator: Generator) -> int:
    records = [
        _record(split, number, pair, sentence, one)
        for number, one in enumerate(sets)
        for sentence in range(2)
        for pair in range(_kept(number, sentence))
    ]
    # Neither rows nor keys are sorted in the official files.
    rows = [records[place] for place in generator.permutation(len(records))]
    rows = [{key: row[key] for key in generator.permutation([*row])} for row in rows]
    (folder / f"{split}.json").write_text("".join(map(to_line, rows)), encoding="utf-8")
    if split != "train":
        for subset, part in (("balanced", rows[: len(rows) // 2]), ("unbalanced", rows[len(rows) // 2 :])):
            # Any division will do: readers only need to find both files.
            path = folder / subset / f"{subset}_{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(map(to_line, part)), encoding="utf-8")
    if split == "dev":
        categories = {sentence: one.category for one in sets for sentence in one.sentences}
        blocks = [f"{sentence}\n* {category}\n" for sentence, category in categories.items()]
        (folder / "annotated_dev_examples.txt").write_text("\n".join(blocks), encoding="utf-8")
    return len(rows)


def _record(split: str, number: int, pair: int, sentence: int, one: Set) -> dict[str, Any]:
    label = str(one.truths[pair] if sentence == 0 else not one.truths[pair])
    record = {
        "identifier": f"{split}-{number}-{pair}-{sentence}",
        "sentence": one.sentences[sentence],
        "label": label,
        "left_url": f"https://example.org/{split}-{number}-{pair}-img0.jpg",
        "right_url": f"https://example.org/{split}-{number}-{pair}-img1.jpg",
        "writer": str(number % 7),
        "validation": {str(number % 5): label},
        "synset": "thing",
        "query": f"things{number}",
    }
    if split == "train":
        return record | {"directory": number % 3}
    return record | {"extra_validations": {str(worker): label for worker in range(2)}}


def _pictures(
    folder: Path, numbered: Sequence[tuple[str, int, Set]], seed: int, progress: Progress | None
) -> Iterator[tuple[str, Regions]]:
    """Write the pictures of every set, every third as JPEG, and yield their keys and regions."""
    for done, (split, number, one) in enumerate(numbered, 1):
        place = folder / "images" / split / (str(number % 3) if split == "train" else "")
        place.mkdir(parents=True, exist_ok=True)
        for pair, scenes in enumerate(one.pairs):
            for side, scene in enumerate(scenes):
                key, stream = f"{split}-{number}-{pair}-img{side}", [seed, 3, done, 2 * pair + side]
                # Under the suffix `.png`, as many official pictures are: readers must look at the content.
                form = "JPEG" if (pair + side) % 3 == 2 else "PNG"
                draw_scene(scene).save(place / f"{key}.png", form)
                yield key, detect(scene, np.random.default_rng(stream))
        if progress is not None:
            progress(EACH * done, EACH * len(numbered))


def _texts(sets: Sequence[Set], generator: Generator) -> Iterator[str]:
    for one in sets:
        yield from one.sentences
        for pair in one.pairs:
            for scene in pair:
                yield from captions(generator, scene)
