"""A miniature world in the files of MLT, from English to German."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from diptych.datasets.caption_world import Captioned, CaptionWorld
from diptych.datasets.sentences import write_lines
from diptych.types import Progress
from diptych.world import tokenized

TESTS = {
    "test_2016_flickr": ("test", "test_sets/ende_test2016.txt"),
    "test_2017_mscoco": ("test2", "test_sets/ende_test2017mscoco.txt"),
    "test_2018_flickr": ("test3", "test_sets/MLTtest2018ende.txt"),
}


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the official files with the list of words, pictures, regions and a vocabulary.

    A word has two translations; the sentence alone does not tell which one is right.

    Args:
        size: number of pictures.

    Returns:
        Number of rows of each split.
    """
    world = CaptionWorld(size, seed)
    rows = {part: [*_rows(scenes)] for part, scenes in world.parts.items()}
    write_lines(folder / "ENDE_MLTD_formatted.txt", _lines([*rows["train"], *rows["val"]]))
    write_lines(folder / "image_splits" / "val.txt", [f"{_key(one)}.jpg" for one in world.parts["val"]])
    for part, name in TESTS.values():
        write_lines(folder / name, _lines(rows[part]))
    human = [
        # Both answers occur, so that the groups of the evaluation are not empty.
        " | ".join((word, noun, source, image, "yes" if place % 3 else "no"))
        for place, (word, noun, source, _, image) in enumerate(rows["test3"])
    ]
    write_lines(folder / "human2018.de", human)
    references = [f"{word} {noun} {line}" for line, (word, noun, *_) in enumerate(rows["test3"])]
    write_lines(folder / "2018evaluation" / "MLTreferences" / "ENDE_MLTD_test2018.txt", references)
    words = dict.fromkeys(noun for part in rows.values() for _, noun, *_ in part)
    # The last line of the real list has no end, either.
    (folder / "MLT_vocab.txt").write_text("\n".join(words), encoding="utf-8")
    world.write(folder, _key, progress)
    counts = {part: len(rows[part]) for part in ("train", "val")}
    counts |= {split: len(rows[part]) for split, (part, _) in TESTS.items()}
    return {**counts, "human_2018": len(human)}


def _rows(scenes: Iterable[Captioned]) -> Iterator[tuple[str, str, str, str, str]]:
    """Word, translation, both sentences and the picture, once for each ambiguous word of a caption."""
    for one in scenes:
        texts = {
            caption.texts["en"]: caption for caption in one.captions
        }  # a caption may have been drawn twice
        for caption in texts.values():
            for word, noun in caption.senses:
                source, target = (tokenized(caption.texts[lang]) for lang in ("en", "de"))
                yield word, noun.lower(), source, target, f"{_key(one)}.jpg"


def _lines(rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [" | ".join(row) for row in rows]


def _key(one: Captioned) -> str:
    return str(2_000_000 + 53 * one.number)
