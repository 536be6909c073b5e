"""Writes emoji as a data set: pictures that a font draws, with the words of emojibase-data."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from diptych.datasets.base import require_size
from diptych.datasets.emoji.drawing import Drawer, find_font
from diptych.datasets.emoji.emojibase import FIRST, Word, read_emojibase, related
from diptych.datasets.emoji.split import FILE, Emoji
from diptych.datasets.sentences import write_lines
from diptych.errors import FormatError
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import Progress

SMALLEST, LARGEST = 40, 200_000
SHARES = {"test": 0.2, "val": 0.1}  # of the emoji; the others are for training
VOCABULARY_SIZE = 1200


def write_world(
    folder: Path,
    *,
    size: int,
    seed: int,
    emojibase: Path | None,
    font: Path | None,
    progress: Progress | None,
) -> dict[str, int]:
    """Write pictures, words and a vocabulary of the English words.

    Emoji that belong together are in one split, see `related`.

    Args:
        size: the largest number of emoji; a smaller one than there are is drawn at random.
        seed: decides which are drawn and how they are split.

    Returns:
        Number of emoji of each split.

    Raises:
        ConfigError: the size is invalid, or words or font are not there.
        FormatError: words or font are damaged, or the font has fewer than 40 of the emoji.
    """
    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="emoji")
    words, path = read_emojibase(emojibase), find_font(font)
    draw = Drawer(path)
    order = np.random.default_rng(seed).permutation(len(groups := related(words)))
    (folder / "img").mkdir()
    drawn: list[list[Word]] = []
    count = missing = 0
    for number in order:
        group = []
        for word in (words[place] for place in groups[number]):
            if count == size:
                break
            if (picture := draw(word.text)) is None:
                missing += 1
                continue
            picture.save(folder / "img" / f"{word.key}.png")
            group.append(word)
            count += 1
            if progress is not None:
                progress(count, min(size, len(words)))
        drawn.append(group)
    if count < SMALLEST:
        raise FormatError(
            f"{path} draws {count} of the {len(words)} emoji of {emojibase}; expected at least {SMALLEST}."
        )
    splits = _divided(drawn, count)
    with open(folder / FILE, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(_lines(splits))
    texts = [text for word in splits["train"] for text in (word.names[FIRST], *word.tags[FIRST])]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    langs = ", ".join(words[0].names)
    write_lines(folder / "README.md", _readme(path.name, count, missing, langs))
    return {split: len(splits[split]) for split in Emoji.names}


def _divided(groups: list[list[Word]], count: int) -> dict[str, list[Word]]:
    """Whole groups for test and validation, until each has its share."""
    splits: dict[str, list[Word]] = {split: [] for split in Emoji.names}
    for group in groups:
        lacking = (split for split, share in SHARES.items() if len(splits[split]) < share * count)
        splits[next(lacking, "train")] += group
    return splits


def _lines(splits: dict[str, list[Word]]) -> Iterator[str]:
    for split, word in chain.from_iterable(((split, one) for one in some) for split, some in splits.items()):
        record = {
            "id": word.key,
            "image": f"img/{word.key}.png",
            "split": split,
            "names": dict(word.names),
            "tags": {lang: [*tags] for lang, tags in word.tags.items()},
        }
        yield json.dumps(record, ensure_ascii=False) + "\n"


def _readme(font: str, count: int, missing: int, langs: str) -> list[str]:
    return [
        "# Emoji",
        "",
        f"{count:,} emoji, drawn with {font}; {missing:,} that it does not have were left out. Names",
        "and tags are those of Unicode's CLDR, from emojibase-data (MIT). Variants of skin are left out, and",
        f"emoji that differ by the person shown are in one split. Languages: {langs}.",
    ]
