"""Hateful Memes as a data set: reads JSON lines, writes CSV.

Kiela et al., 2020, https://arxiv.org/abs/2005.04790. `dev_unseen` shares 400 of its memes with `dev_seen`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.datasets.base import Split
from diptych.datasets.binary_csv import read_scores, write_scores
from diptych.datasets.examples import ExampleTable
from diptych.datasets.hateful_memes.records import (
    LABELS,
    Meme,
    read_memes,
    require_answers,
    require_memes,
    split_path,
    with_answers,
)
from diptych.errors import FormatError
from diptych.predictions import Predictions
from diptych.types import Example, Pair, Progress

if TYPE_CHECKING:
    from diptych.datasets.hateful_memes.views import CleanReport

SPLIT_PREFIXES = ("train", "dev", "val", "test")  # the folder may have other .jsonl files


class HatefulMemes(Split):
    """The memes of one split, in file order; `Example.target` is a name in `LABELS` or None.

    Args:
        root: folder of the annotation files and pictures.
        split: name of an annotation file without `.jsonl`.
        answers: file of JSON lines with `id` and `label` that provides withheld labels; it may have more ids
            than the split.
        limit: use only the first memes, up to this number.
        twice: split whose memes are appended for training; Vilio's E uses dev_seen twice.

    Raises:
        FormatError: names file and line of the first invalid record, and the number of further ones.
        ConfigError: there is no such split.
    """

    name = "hateful_memes"
    noun = "meme"
    labels = LABELS
    positive = LABELS[1]
    suffix = ".csv"
    measure = "auroc"
    predicted = ("dev_seen", "test_seen")
    views = ("train", "traindev", "pretrain")
    overlaps = frozenset({frozenset({"dev_seen", "dev_unseen"})})

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        answers: Path | str | None = None,
        limit: int | None = None,
        twice: str | None = None,
    ) -> None:
        # Before the constructor of the base, which reads the examples with them.
        self.answers = None if answers is None else require_answers(Path(answers))
        super().__init__(root, split, limit=limit)
        if twice is not None:
            again = HatefulMemes(root, twice)
            # In memory, and with repeated ids: such a split is for training only, where ids do not matter.
            self.table = ExampleTable.of([*self.table, *again.table])
            self.files = (*self.files, *again.files)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        names = sorted(path.stem for path in root.glob("*.jsonl"))
        return tuple(
            name for name in names if name.startswith(SPLIT_PREFIXES) and not name.endswith(".answers")
        )

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        # One file is enough: the others may be missing or damaged, which reading them reports.
        return any(_begins_with_memes(root / f"{name}.jsonl") for name in cls.splits(root))

    @classmethod
    def answers_file(cls, root: Path, split: str) -> Path:
        return root / f"{split}.answers.jsonl"

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        return (split_path(root, split),)

    def read(self) -> Iterator[Example]:
        path, memes = self.files[0], require_memes(self.files[0])
        return map(_example, memes if self.answers is None else with_answers(memes, self.answers, path))

    @classmethod
    def clean(cls, root: Path, out: Path, **options: Any) -> "CleanReport":
        from diptych.datasets.hateful_memes.views import clean  # scipy is slow to import

        return clean(root, out, **options)

    @classmethod
    def lint(
        cls, root: Path, split: str, **settings: Any
    ) -> tuple[Split | Sequence[Example], tuple[FormatError, ...]]:
        memes, problems = read_memes(split_path(root, split))
        return [*map(_example, memes)], tuple(problems)

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the submission: `id,proba,label` in the order of the split; `proba` is that of hateful.

        Raises:
            FormatError: the ids differ from those of the split, or a score is not a probability.
        """
        # The challenge compares by row, so the order of the split is the order of the file.
        predictions = predictions.unique().align(self.ids)
        predictions.column(self.positive)  # raises an error for predictions of another data set
        write_scores(predictions, path)

    def read_predictions(self, path: Path) -> Predictions:
        """Read a submission, or a score file of Vilio; see `read_scores`."""
        return read_scores(path, classes=self.labels)

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.hateful_memes.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _begins_with_memes(path: Path) -> bool:
    """Whether the first bytes look like annotations; a file with damaged records is still recognized."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"img"' in file.read(1 << 16)


def _example(meme: Meme) -> Example:
    return Example(
        id=meme.id,
        pairs=(Pair(image=meme.key, text=meme.text, files=(meme.image,)),),
        target=None if meme.label is None else LABELS[meme.label],
    )
