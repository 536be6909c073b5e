"""LXMERT's pre-training data as a data set (Tan and Bansal, 2019, https://arxiv.org/abs/1908.07490).

    root/mscoco_train.json, mscoco_nominival.json, vgnococo.json     training: 9 million sentences
    root/mscoco_minival.json                                         validation
    root/all_ans.json                                                the answers, of which others are dropped

The files may also lie in `lxmert/` or `data/lxmert/` below the root, as in the original. Any other file of
the same form is a split, too. `A+B` is a split made of two files.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.datasets.answer_table import PRETRAINING, PRETRAINING_FOLDERS, read_answers
from diptych.datasets.base import PretrainingSplit, require_split
from diptych.datasets.lxmert.records import read_windows
from diptych.errors import ConfigError
from diptych.files import require_file
from diptych.types import Progress

if TYPE_CHECKING:
    from pyarrow import RecordBatch


SOURCES = ("mscoco_train", "mscoco_nominival", "vgnococo", "mscoco_minival")
SNIFF = 1 << 16  # bytes in which the first record shows its form


class LxmertPretraining(PretrainingSplit):
    """The sentences of one or more files, in the order of the files.

    An example is a sentence: `group` is its category (`mscoco`, `vg`, `vqa`, `gqa`, `visual7w`), `target` its
    answers with scores, None for captions and for answers outside the table. `labels` is the answer table:
    that of `all_ans.json`, or without one all answers of the split, the most frequent first.

    Pictures with keys such as `COCO_train2014_000000000009` have their regions in the store `coco`, all
    others in the store `vg`, as the original has one feature file for each collection.

    Args:
        root: folder of the files, or the original's tree.
        split: name of a file, or several as `A+B`.
        limit: maximum number of sentences.
        qa_sets: keep the answers of `all_ans.json` that occur in one of these data sets (`vqa`, `gqa`,
            `visual7w`); questions without such an answer stay, without a target. Empty keeps all.
    """

    name = "lxmert"
    noun = "sentence"
    stores = ("coco", "vg")
    partial = True

    def __init__(
        self, root: Path | str, split: str, *, limit: int | None = None, qa_sets: Sequence[str] = ()
    ) -> None:
        folder = _folder(Path(root))
        self.answers = folder / PRETRAINING if (folder / PRETRAINING).is_file() else None
        if qa_sets:
            self.settings = {"qa_sets": [*qa_sets]}
            require_file(folder / PRETRAINING, "the answers and their data sets")
        # Before the constructor of the base, which reads the examples with this table.
        self._table = None if self.answers is None else read_answers(self.answers, sets=qa_sets)
        super().__init__(root, split, limit=limit)
        self.labels = self._counted() if self._table is None else self._table

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        folder = _folder(root)
        names = {path.stem for path in folder.glob("*.json") if path.stem in SOURCES or _looks_right(path)}
        return (*(name for name in SOURCES if name in names), *sorted(names.difference(SOURCES)))

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        names = split.split("+")
        known = cls.splits(root)
        for name in names:
            require_split(name, root, known)
        if len(set(names)) < len(names):
            raise ConfigError(f"{split!r} names a file twice; expected each once, as {'+'.join(known[:2])}.")
        return tuple(_folder(root) / f"{name}.json" for name in names)

    def read(self) -> "Iterable[RecordBatch]":
        for path in self.files:
            # `files` ends with the table of answers,
            # which is part of the key of the cache but holds no examples.
            if path != self.answers:
                yield from read_windows(path, self._table)

    def _counted(self) -> tuple[str, ...]:
        counts: Counter[str] = Counter()
        for target, _, times in self.table.targets():
            if isinstance(target, Mapping):
                counts.update(dict.fromkeys(target, times))
        return tuple(answer for answer, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def place(self, key: str) -> tuple[str | None, str]:
        # The original has one feature file for each collection, so keys are unique within one only.
        return "coco" if key.startswith("COCO_") else "vg", key

    def image_path(self, key: str) -> Path:
        # COCO's names contain their folder: `COCO_train2014_...`.
        folder = key.split("_")[1] if key.startswith("COCO_") else "VG_100K"
        return self.root / folder / f"{key}.jpg"

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.lxmert.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _folder(root: Path) -> Path:
    """Where the files lie: the root, or the place that they have in the original's tree."""
    places = [root / name for name in PRETRAINING_FOLDERS]
    return next(
        (place for place in places if any((place / f"{one}.json").is_file() for one in SOURCES)), root
    )


def _looks_right(path: Path) -> bool:
    """Whether a file begins with such records; a damaged file is still recognized."""
    with path.open("rb") as file:
        start = file.read(SNIFF)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and b'"sentf"' in start
