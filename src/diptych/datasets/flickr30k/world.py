"""A miniature world in the format of Flickr30k: Karpathy's file, and the same captions as token file."""

from pathlib import Path
from typing import Any

from diptych.datasets.caption_world import CaptionWorld, karpathy, karpathy_file
from diptych.datasets.flickr30k.split import KARPATHY, TOKENS
from diptych.datasets.sentences import write_lines
from diptych.types import Progress

PARTS = {"train": ("train", "test2", "test3"), "val": ("val",), "test": ("test",)}
EACH = 5
TOKEN_FOLDER = "official"  # a root of its own: Karpathy's file would count before the token file


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the files of captions, pictures, regions and a vocabulary.

    Args:
        size: number of pictures.

    Returns:
        Number of captions of each split.
    """
    world = CaptionWorld(size, seed, each=EACH)
    lines: list[str] = []
    images = list[dict[str, Any]]()
    for split, parts in PARTS.items():
        scenes = [one for part in parts for one in world.parts[part]]
        names = [f"{1_000_000 + 37 * one.number}.jpg" for one in scenes]
        # The list of one split has the endings, as Multi30k's lists; the others have none, as in Entities.
        write_lines(
            folder / TOKEN_FOLDER / f"{split}.txt", names if split == "val" else [name[:-4] for name in names]
        )
        for name, one in zip(names, scenes, strict=True):
            captions = [caption.texts["en"] for caption in one.captions]
            lines += [f"{name}#{number}\t{text}" for number, text in enumerate(captions)]
            images.append(karpathy(len(images), name, split, captions))
    write_lines(folder / TOKEN_FOLDER / TOKENS[0], lines)
    karpathy_file(folder / KARPATHY, images, "flickr30k")
    world.write(folder, lambda one: str(1_000_000 + 37 * one.number), progress)
    return {split: EACH * sum(len(world.parts[part]) for part in parts) for split, parts in PARTS.items()}
