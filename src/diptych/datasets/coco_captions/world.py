"""A miniature world in the format of COCO captions: Karpathy's file and the official ones."""

import json
from pathlib import Path
from typing import Any

from diptych.datasets.caption_world import Captioned, CaptionWorld, karpathy, karpathy_file
from diptych.datasets.coco_captions.split import KARPATHY
from diptych.types import Progress

PARTS = {"train": ("train",), "restval": ("test3",), "val": ("val",), "test": ("test", "test2")}
EACH = 5


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the files of captions, pictures, regions and a vocabulary.

    Some captions end in a blank or a line break, as in the real files.

    Args:
        size: number of pictures.

    Returns:
        Number of captions of each split.
    """
    world = CaptionWorld(size, seed, each=EACH)
    scenes = {split: [one for part in parts for one in world.parts[part]] for split, parts in PARTS.items()}
    images = list[dict[str, Any]]()
    for split, some in scenes.items():
        for one in some:
            filepath = "train2014" if split == "train" else "val2014"
            name = f"COCO_{filepath}_{_image(one):012d}.jpg"
            first = EACH * one.number
            images.append(
                {
                    **karpathy(len(images), name, split, _captions(one), first=first),
                    "filepath": filepath,
                    "cocoid": _image(one),
                }
            )
    karpathy_file(folder / KARPATHY, images, "coco")
    held = [one for split in ("restval", "val", "test") for one in scenes[split]]
    for year, some in (("train2014", scenes["train"]), ("val2014", held)):
        _official(folder / f"captions_{year}.json", year, some)
    files = {image["cocoid"]: image["filename"].removesuffix(".jpg") for image in images}
    world.write(folder, lambda one: files[_image(one)], progress)
    counts = {split: EACH * len(some) for split, some in scenes.items()}
    return counts | {"train2014": counts["train"], "val2014": EACH * len(held)}


def _image(one: Captioned) -> int:
    # Ids with gaps, as those of COCO.
    return 7 * one.number + 2


def _captions(one: Captioned) -> list[str]:
    texts = [caption.texts["en"] for caption in one.captions]
    return [f"{texts[0]} ", f"{texts[1]}\n", *texts[2:]]


def _official(path: Path, split: str, scenes: list[Captioned]) -> None:
    content = {
        "info": {"description": "a miniature world", "version": "1.0", "year": 2014},
        "images": [
            {"id": _image(one), "file_name": f"COCO_{split}_{_image(one):012d}.jpg", "license": 1}
            for one in scenes
        ],
        "licenses": [{"id": 1, "name": "none", "url": ""}],
        "annotations": [
            {"image_id": _image(one), "id": EACH * one.number + number, "caption": text}
            for number in range(EACH)  # the captions of an image are not beside each other
            for one, text in ((one, _captions(one)[number]) for one in scenes)
        ],
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
