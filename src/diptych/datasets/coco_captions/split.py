"""COCO captions as a data set (Chen et al., 2015, https://arxiv.org/abs/1504.00325).

    dataset_coco.json                      Karpathy's splits: train, restval, val, test
    captions_{train,val}{2014,2017}.json   the official ones: train2014, val2014, train2017, val2017

Retrieval is reported on the 5,000 images of Karpathy's test split, or as the mean over five parts of 1,000
images (`folds=5` of `diptych.predict.retrieve`). Models are usually trained on `train+restval`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.datasets.captions import CaptionSplit, read_karpathy
from diptych.datasets.json_records import Record, read_members
from diptych.datasets.locate import locate
from diptych.types import Example, Progress

KARPATHY = "dataset_coco.json"
OFFICIAL = ("train2014", "val2014", "train2017", "val2017")


class CocoCaptions(CaptionSplit):
    """The captions of one split; ids are those of COCO's annotations."""

    name = "coco_captions"
    names = ("train", "restval", "val", "test", *OFFICIAL)
    folders = ("", "annotations", "coco", "coco/annotations", "data/coco", "data/coco/annotations")
    picture_folders = tuple(
        f"{place}{name}"
        for name in ("", "train2014", "val2014", "train2017", "val2017")
        for place in ("images/", "", "coco/", "data/coco/")
        if place or name
    )
    # The official splits hold the same images as Karpathy's.
    overlaps = frozenset(
        frozenset(pair)
        for pair in (
            ("train", "train2014"),
            *((name, "val2014") for name in ("restval", "val", "test")),
            *((name, year) for name in ("train", "restval", "val", "test") for year in OFFICIAL[2:]),
            *((old, new) for old in OFFICIAL[:2] for new in OFFICIAL[2:]),
        )
    )

    @classmethod
    def files_of(cls, root: Path, split: str) -> tuple[Path, ...]:
        name = f"captions_{split}.json" if split in OFFICIAL else KARPATHY
        path = locate(root, [name], folders=cls.folders, fits=Path.is_file)
        return () if path is None else (path,)

    def read_split(self, split: str) -> Iterator[Example]:
        path = self.files_of(self.root, split)[0]
        if split in OFFICIAL:
            yield from self._read_official(path, split)
            return
        for _, picture, sentences in read_karpathy(path, split):
            for one in sentences:
                yield self.example(str(one.number("sentid")), picture, one.text("raw"), one.where)

    def _read_official(self, path: Path, split: str) -> Iterator[Example]:
        prefix = f"COCO_{split}_" if split.endswith("2014") else ""  # names of 2017 are the number alone
        number = 0
        for key, value in read_members(path, lists=("annotations",)):
            if key != "annotations":
                continue
            record = Record(value, f"{path}: annotation {number}")
            picture = f"{prefix}{record.number('image_id'):012d}.jpg"
            yield self.example(str(record.number("id")), picture, record.text("caption"), record.where)
            # Annotations only: the lists of images and licenses are not what a message counts.
            number += 1

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.coco_captions.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)
