"""Flickr30k as a data set (Young et al., 2014, https://aclanthology.org/Q14-1006).

    dataset_flickr30k.json        Karpathy's splits: train, val, test

or the official captions with a list of pictures for each split:

    results_20130124.token        IMAGE.jpg#NUMBER <tab> caption
    train.txt, val.txt, test.txt  one picture per line, with or without .jpg

The lists of Flickr30k Entities are other splits than Karpathy's: some pictures of one's test are in the
other's train. If a root has both files, Karpathy's counts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.datasets.captions import CaptionSplit, read_karpathy
from diptych.datasets.locate import locate
from diptych.datasets.sentences import read_lines
from diptych.errors import FormatError
from diptych.types import Example, Progress

KARPATHY, TOKENS = "dataset_flickr30k.json", ("results_20130124.token", "results.token")
LISTS = ("", "splits", "image_splits")  # folders of the lists, beside the captions


class Flickr30k(CaptionSplit):
    """The captions of one split, with ids `IMAGE.jpg#NUMBER`."""

    name = "flickr30k"
    names = ("train", "val", "test")
    folders = ("", "flickr30k", "data/flickr30k", "annotations")
    picture_folders = ("images", "flickr30k-images", "flickr30k_images", "flickr30k/images", "")

    @classmethod
    def files_of(cls, root: Path, split: str) -> tuple[Path, ...]:
        if (path := locate(root, [KARPATHY], folders=cls.folders, fits=Path.is_file)) is not None:
            return (path,)
        # The captions know no splits; without lists beside them there are none.
        path = locate(root, TOKENS, folders=cls.folders, fits=Path.is_file)
        if path is None:
            return ()
        names = locate(path.parent, [f"{split}.txt"], folders=LISTS, fits=Path.is_file)
        return () if names is None else (path, names)

    def read_split(self, split: str) -> Iterator[Example]:
        files = self.files_of(self.root, split)
        if len(files) > 1:
            yield from self._read_tokens(*files)
            return
        for _, picture, sentences in read_karpathy(files[0], split):
            for number, one in enumerate(sentences):
                yield self.example(f"{picture}#{number}", picture, one.text("raw"), one.where)

    def _read_tokens(self, path: Path, names: Path) -> Iterator[Example]:
        wanted = {line.strip().removesuffix(".jpg") for line in read_lines(names)} - {""}
        found: set[str] = set()
        for number, line in enumerate(read_lines(path), 1):
            name, tab, caption = line.partition("\t")
            picture, mark, _ = name.partition("#")
            if not tab or not mark:
                raise FormatError(
                    f"{path}:{number}: got {line!r:.60}; expected IMAGE.jpg#NUMBER, a tab and a caption."
                )
            # Lists name pictures with or without the ending.
            if (stem := picture.removesuffix(".jpg")) in wanted:
                found.add(stem)
                yield self.example(name, picture, caption, f"{path}:{number}")
        if missing := sorted(wanted - found):
            raise FormatError(
                f"{names}: {len(missing)} pictures have no caption in {path.name}, the first is {missing[0]}."
            )

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.flickr30k.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)
