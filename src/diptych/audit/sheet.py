"""Reads the annotations of all splits of a data set into columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diptych.data import image_keys
from diptych.datasets import Data, Split
from diptych.errors import ConfigError
from diptych.predictions import likeliest
from diptych.types import Example

Release = Literal["in the split", "in part", "in a file of answers", "withheld"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The examples of all splits, one after the other; N examples.

    Args:
        splits: names, the training split first.
        datasets: the splits, with labels wherever there are any.
        release: where the labels of each split are.
        split: number in `splits` of each example.
        texts: all texts of an example, joined.
        pictures: files of each example; empty if the data set has no picture file on the disk.
        labels: the class; of a soft target the likeliest one, of several labels all of them. None if
            withheld, or if the target is no class (a box, the number of a choice).
        classes: whether every target that is known is one class.
        repeated: whether an earlier split has an example with this id.
    """

    root: Path
    data: Data
    splits: tuple[str, ...]
    datasets: Mapping[str, Split]
    release: Mapping[str, Release]
    split: tuple[int, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    pictures: tuple[tuple[Path, ...], ...]
    labels: tuple[str | None, ...]
    classes: bool
    repeated: tuple[bool, ...]

    def rows(self, split: str) -> list[int]:
        """Rows of the examples of a split."""
        number = self.splits.index(split)
        return [row for row, of in enumerate(self.split) if of == number]

    @property
    def labeled(self) -> list[str]:
        """Splits with at least one label of each of two classes."""
        seen: dict[int, set[str]] = {}
        for of, label in zip(self.split, self.labels, strict=True):
            if label is not None:
                seen.setdefault(of, set()).add(label)
        # With one class, there is neither an AUROC nor a confounder.
        return [name for number, name in enumerate(self.splits) if len(seen.get(number, ())) > 1]


def read_sheet(
    root: Path, data: Data, *, splits: Sequence[str] | None = None, limit: int | None = None
) -> Sheet:
    """Read the annotations of a folder.

    Args:
        splits: by default all splits except cleaned views of the training split.
        limit: read only this number of examples of each split.

    Raises:
        ConfigError: the folder has no split, or not this one.
        FormatError: a record is damaged; names file and line.
    """
    names = tuple(splits) if splits else _own_splits(root, data)
    if not names:
        raise ConfigError(f"{root} has no split of {data.kind.name}. Is it the right folder?")
    datasets, release, columns = {}, {}, []
    seen: set[str] = set()
    for number, name in enumerate(names):
        dataset, release[name] = _opened(root, data, name, limit)
        datasets[name] = dataset
        for example in dataset:
            columns.append((number, *_row(dataset, example), example.id in seen))
        # After the split: what repeats within one is a copy, and not an example of an earlier split.
        seen.update(dataset.ids)
    of, ids, texts, pictures, targets, repeated = (
        zip(*columns, strict=True) if columns else ((),) * 6  # splits that are empty files
    )
    # Features are often published without pictures; then there are only texts to compare.
    present = any(path.is_file() for paths in pictures for path in paths)
    return Sheet(
        root=root,
        data=data,
        splits=names,
        datasets=datasets,
        release=release,
        split=of,
        ids=ids,
        texts=texts,
        pictures=pictures if present else ((),) * len(ids),
        labels=tuple(map(_label, targets)),
        classes=all(target is None or isinstance(target, str) for target in targets),
        repeated=repeated,
    )


def _own_splits(root: Path, data: Data) -> tuple[str, ...]:
    found = data.splits(root)
    # Views repeat the training split by design.
    kept = [name for name in found if name == data.train or name not in data.kind.views]
    # False sorts before True: the training split comes first, the others keep their order.
    return tuple(sorted(kept, key=lambda name: name != data.train))


def _opened(root: Path, data: Data, name: str, limit: int | None) -> tuple[Split, Release]:
    dataset = data.open(root, name, limit=limit)
    known = sum(example.target is not None for example in dataset)
    if known:
        return dataset, "in the split" if known == len(dataset) else "in part"
    # The labels of a test are often published later, in a file of their own.
    answers = data.kind.answers_file(root, name)
    if answers is None or not answers.is_file():
        return dataset, "withheld"
    return data.open(root, name, limit=limit, answers=answers), "in a file of answers"


def _row(dataset: Split, example: Example) -> tuple[str, str, tuple[Path, ...], Any]:
    texts = [text for pair in example.pairs for text in (pair.text, pair.text_b, *pair.more_texts) if text]
    files = tuple(dict.fromkeys(_files(dataset, example)))
    return example.id, " | ".join(texts), files, example.target


def _files(dataset: Split, example: Example) -> Iterable[Path]:
    for pair in example.pairs:
        if pair.files:
            yield from (dataset.root / name for name in pair.files)
        else:
            yield from (dataset.image_path(key) for key in image_keys(pair))


def _label(target: Any) -> str | None:
    if isinstance(target, Mapping):
        # Several labels may apply; of scored answers, the best one is the label.
        sure = [name for name, score in target.items() if score >= 1]
        return " + ".join(sorted(map(str, sure))) if len(sure) > 1 else str(likeliest(target))
    return target if isinstance(target, str) else None
