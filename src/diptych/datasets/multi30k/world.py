"""A miniature world in the layout of Multi30k, in English and German, with the oddities of its real lists."""

from pathlib import Path

from diptych.datasets.caption_world import LANGUAGES, Captioned, CaptionWorld, write_packed
from diptych.datasets.multi30k.files import DESCRIPTIONS, OLDER
from diptych.datasets.sentences import write_lines
from diptych.types import Progress
from diptych.world import tokenized

SPLITS = {
    "train": "train",
    "val": "val",
    "test_2016_flickr": "test",
    "test_2017_mscoco": "test2",
    "test_2018_flickr": "test3",
}
DESCRIBED = ("train", "val", "test_2016_flickr")  # splits of task 2


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the official files of both tasks, pictures, regions and a vocabulary.

    The first caption of a scene and its translation are a line of task 1. In task 2, all captions are there,
    those of a language in an order of their own: line by line they are no translations.

    Args:
        size: number of pictures.

    Returns:
        Number of pictures of each split.
    """
    world = CaptionWorld(size, seed, each=DESCRIPTIONS)
    names = {one.number: _name(split, one.number) for split in SPLITS for one in world.parts[SPLITS[split]]}
    for split, part in SPLITS.items():
        scenes = world.parts[part]
        first = folder / "data" / "task1"
        # As the real list of COCO's pictures, which adds the id of a caption.
        tails = {one.number: f"#{7 * one.number}" if split == "test_2017_mscoco" else "" for one in scenes}
        images = [f"{names[one.number]}.jpg{tails[one.number]}" for one in scenes]
        write_lines(first / "image_splits" / f"{split}.txt", images)
        for lang in LANGUAGES:
            lines = [one.captions[0].texts[lang] for one in scenes]
            write_packed(first / "raw" / f"{split}.{lang}.gz", lines)
            write_lines(first / "tok" / f"{split}.lc.norm.tok.{lang}", [*map(tokenized, lines)])
        if split in DESCRIBED:
            _describe(folder / "data" / "task2", OLDER.get(split, split), scenes, images)
    world.write(folder, lambda one: names[one.number], progress)
    return {split: len(world.parts[part]) for split, part in SPLITS.items()}


def _describe(folder: Path, stem: str, scenes: list[Captioned], images: list[str]) -> None:
    write_lines(folder / "image_splits" / f"{stem}_images.txt", images)
    for shift, lang in enumerate(LANGUAGES):
        for number in range(DESCRIPTIONS):
            # Shifted by language: descriptions of one number do not translate each other, as in the real
            # files.
            lines = [one.captions[(number + shift) % DESCRIPTIONS].texts[lang] for one in scenes]
            write_packed(folder / "raw" / f"{stem}.{number + 1}.{lang}.gz", lines)


def _name(split: str, number: int) -> str:
    """Name of a picture without ending, as in the real lists."""
    if split == "test_2017_mscoco":
        return f"COCO_{'train' if number % 2 else 'val'}2014_{number:012d}"
    if split == "test_2018_flickr":
        # With a hash behind the number, as Flickr's files of 2018.
        return f"{10_000_000 + number}_{number * 2654435761 % (1 << 40):010x}"
    return str(1_000_000 + 37 * number)
