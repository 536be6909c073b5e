"""Conceptual Captions as a data set (Sharma et al., 2018, https://aclanthology.org/P18-1238).

    root/train_frcnn.json, val_frcnn.json     JSON lines of VL-BERT and MM-BERT, or train.json, val.json,
    root/Train_GCC-training.tsv, ...          or else the official tables
    root/train_image.zip                      the pictures, or unpacked: train_image/00000042.jpg, ...

The files may also lie in `conceptual-captions/` or `data/conceptual-captions/` below the root, as in the
original's tree.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.datasets.base import PretrainingSplit, require_split
from diptych.datasets.conceptual_captions.records import read_rows
from diptych.datasets.examples import string_batch
from diptych.datasets.rows import WINDOW
from diptych.errors import FormatError
from diptych.types import Progress

if TYPE_CHECKING:
    from pyarrow import RecordBatch

FOLDERS = ("conceptual-captions", "data/conceptual-captions")
FILES = {
    "train": ("train_frcnn.json", "train.json", "Train_GCC-training.tsv"),
    "val": ("val_frcnn.json", "val.json", "Validation_GCC-1.1.0-Validation.tsv"),
}
SNIFF = 1 << 12  # bytes in which the first record shows its form


class ConceptualCaptions(PretrainingSplit):
    """A picture and its caption; the id is `SPLIT/NUMBER`, the target 1, because they belong together.

    Both splits number their pictures from 0, so each has a feature store of its own: `train` and `val`.

    Args:
        root: folder of the files, or the original's tree.
        split: `train` or `val`.
        limit: maximum number of captions.
    """

    name = "conceptual_captions"
    noun = "caption"
    stores = tuple(FILES)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        return tuple(split for split in FILES if _file(root, split) is not None)

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        require_split(split, root, cls.splits(root))
        return tuple(file for file in [_file(root, split)] if file is not None)

    def read(self) -> "Iterator[RecordBatch]":
        (path,) = self.files
        # In windows: three million captions would be a gigabyte of Python strings.
        rows = list[tuple[str, str, str]]()
        for row in read_rows(path):
            rows.append(row)
            if len(rows) == WINDOW:
                yield self._window(path, rows)
                rows = []
        if rows:
            yield self._window(path, rows)

    def _window(self, path: Path, rows: Iterable[tuple[str, str, str]]) -> "RecordBatch":
        keys, files, texts = (list(column) for column in zip(*rows, strict=True))
        folder = path.parent.relative_to(self.root)
        inside = f"{self.split}_image" if path.suffix == ".tsv" else ""  # the JSON lines name the folder
        try:
            return string_batch(
                ids=[f"{self.split}/{key}" for key in keys],
                texts=texts,
                images=keys,
                files=[(folder / inside / file).as_posix() for file in files],
                targets=["1"] * len(keys),
            )
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    def place(self, key: str) -> tuple[str | None, str]:
        return self.split, key

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.conceptual_captions.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _file(root: Path, split: str) -> Path | None:
    places = [root, *(root / name for name in FOLDERS)]
    files = (place / name for place in places for name in FILES[split])
    return next((file for file in files if file.is_file() and _looks_right(file)), None)


def _looks_right(path: Path) -> bool:
    """Whether a file belongs here: by its name, or of a common one (`train.json`) by its first record."""
    if path.suffix == ".tsv":
        return True
    with path.open("rb") as file:
        start = file.read(SNIFF)
    if path.stem.endswith("_frcnn"):
        return b'"caption_en"' not in start  # MM-BERT's files of Multi30k and MLT have these names, too
    return b'"caption"' in start and (b'"image"' in start or b'"frcnn"' in start)
