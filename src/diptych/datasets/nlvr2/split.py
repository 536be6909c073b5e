"""NLVR2 as a data set: reads official and LXMERT's files, writes the official CSV.

Suhr et al., 2019, https://arxiv.org/abs/1811.00491.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.datasets.base import Split, require_split
from diptych.datasets.locate import locate
from diptych.datasets.nlvr2.records import (
    LABELS,
    looks_like_statements,
    read_categories,
    read_statements,
    read_verdicts,
)
from diptych.errors import ConfigError, FormatError, first_five
from diptych.files import atomic_file
from diptych.metrics import consistent
from diptych.predictions import Predictions
from diptych.types import Example, Progress

# Official name of each split, and that of LXMERT's files.
OFFICIAL = {"train": "train", "dev": "valid", "test1": "test", "test2": "hidden"}
OTHER = OFFICIAL | {lxmert: official for official, lxmert in OFFICIAL.items()}
SUBSETS = ("balanced", "unbalanced")
FOLDERS = ("", "nlvr2", "nlvr2/data", "data", "data/nlvr2", "nlvr2/defaults/annotations")
PICTURES = ("images", "nlvr2/images", "data/nlvr2/images")
CATEGORIES = "annotated_dev_examples.txt"


class Nlvr2(Split):
    """The statements of one split, in file order; `Example.target` is "True", "False" or None.

    Args:
        root: the official repository, LXMERT's `data/` folder, or a folder of the files.
        split: `train`, `dev`, `test1`, `test2`, or LXMERT's `valid`, `test`, `hidden`; also a subset of one,
            as `balanced_dev`.
        limit: use only the first statements, up to this number.
        together: put both images into one pair (UNITER's triplet) instead of one pair for each image.
        image_key: key of an image in the feature stores, where `{}` is LXMERT's key, as `dev-850-0-img0`;
            UNITER's stores have `nlvr2_{}`.

    Raises:
        FormatError: names file and line of the first invalid record.
        ConfigError: there is no such split.
    """

    name = "nlvr2"
    noun = "statement"
    labels = LABELS
    positive = "True"
    suffix = ".csv"
    measure = "accuracy"

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        together: bool = False,
        image_key: str = "{}",
        limit: int | None = None,
    ) -> None:
        if image_key.count("{}") != 1:
            raise ConfigError(
                f"data.image_key is {image_key!r}; expected one {{}} for the name of the image."
            )
        self.settings = {"together": together, "image_key": image_key}
        super().__init__(root, split, limit=limit)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        found = ((name, _locate(root, name)) for name in OFFICIAL)  # subsets are parts of these
        return tuple(name for name, path in found if path is not None and looks_like_statements(path))

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        if (path := _locate(root, split)) is None:
            require_split(split, root, cls.splits(root))
        assert path is not None
        return (path,)

    def read(self) -> Iterable[Example]:
        return read_statements(self.files[0], **self.settings)

    def image_path(self, key: str) -> Path:
        before, _, after = self.settings["image_key"].partition("{}")
        # Back from the key of the store to the name of the picture.
        key = key.removeprefix(before).removesuffix(after)
        split = key.partition("-")[0]
        return self._pictures.get(key, self.root / PICTURES[0] / split / f"{key}.png")

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        """Every picture by key. The 100 folders of training pictures follow no rule, so they are listed."""
        # Pictures may also lie in a folder named like their split, officially or by LXMERT.
        own = {name for key in self.ids[:1] for name in (key.partition("-")[0], self.split)}
        folders = [self.root / name for name in (*PICTURES, *sorted(own))]
        files = [path for path in self.root.iterdir() if path.suffix == ".png"]
        for folder in folders:
            for place, _, names in os.walk(folder):
                files += [Path(place, name) for name in names]
        # Reversed, so that of equal names the first folder in the list wins.
        return {path.stem: path for path in reversed(files)}

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write `identifier,True` for every statement, without a header.

        Raises:
            FormatError: a statement has no prediction, or an answer is neither True nor False.
        """
        predictions = predictions.unique().align(self.ids)
        answers = predictions.answers or ()
        if len(answers) != len(predictions) or (odd := sorted(set(answers) - {*LABELS})):
            got = "none" if not answers else first_five(odd)
            raise FormatError(f"{path}: the answers are {got}; expected True or False for every statement.")
        with atomic_file(path, "w", newline="", encoding="utf-8") as file:
            file.writelines(f"{key},{answer}\n" for key, answer in zip(self.ids, answers, strict=True))

    def read_predictions(self, path: Path) -> Predictions:
        """Read a CSV without header; of a subset of a split, that of the whole split serves, too."""
        verdicts = read_verdicts(path)
        if self.split.startswith(SUBSETS) and verdicts.keys() >= set(self.ids):
            verdicts = {key: verdicts[key] for key in self.ids}
        return Predictions(ids=tuple(verdicts), answers=tuple(verdicts.values()), form="answers")

    def breakdown(self, predictions: Predictions) -> Mapping[str, Mapping[str, Float[ndarray, " U"]]]:
        """Consistency, and accuracy on the balanced and unbalanced subset and on annotated categories."""
        targets = dict(self.table.target_column())
        rows = zip(predictions.ids, predictions.answers or (), strict=True)
        right = {key: float(targets[key] == answer) for key, answer in rows}
        # A sentence counts if it is judged right of all its pairs.
        sentences = consistent(predictions, targets)
        tables: dict[str, dict[str, ndarray]] = {
            "": {"consistency": np.array([*sentences.values()], float)},
            "accuracy per subset": {},
            "accuracy per category": {},
        }
        for name, keys in (*self._subsets(), *self._categories()):
            if values := [right[key] for key in keys if key in right]:
                title = f"accuracy per {'subset' if name in SUBSETS else 'category'}"
                tables[title][name] = np.array(values)
        return tables

    def _subsets(self) -> Iterable[tuple[str, Sequence[str]]]:
        for subset in SUBSETS:
            path = _locate(self.root, f"{subset}_{self.split}")
            if path is not None:
                yield subset, [example.id for example in read_statements(path, together=True)]

    def _categories(self) -> Iterable[tuple[str, Sequence[str]]]:
        folders = [*FOLDERS, *(f"{folder}{part}" for folder in ("", "nlvr2/") for part in ("util", "eval"))]
        path = locate(self.root, [CATEGORIES], folders=folders, fits=Path.is_file)
        # The 800 annotated sentences are of dev.
        if path is None or self.split.rpartition("_")[2] not in ("dev", "valid"):
            return ()
        annotated = read_categories(path)
        ids: dict[str, list[str]] = defaultdict(list)
        for example in self:
            # By the sentence: the official file has no identifiers.
            for category in annotated.get(example.pairs[0].text.strip(), ()):
                ids[category].append(example.id)
        return sorted(ids.items())

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.nlvr2.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _locate(root: Path, split: str) -> Path | None:
    # A split is a name, not a path; it may come from a stranger's file.
    if "/" in split:
        return None
    subset, _, whole = split.rpartition("_")
    prefix = f"{subset}_" if subset in SUBSETS else ""
    stems = [f"{prefix}{name}" for name in (whole, OTHER.get(whole)) if name is not None]
    # The official name first, then LXMERT's (`valid` for `dev`), then mmf's suffix.
    names = [f"{stem}{suffix}" for stem in stems for suffix in (".json", ".jsonl")]
    folders = [str(Path(folder, part)) for folder in FOLDERS for part in (["", subset] if prefix else [""])]
    return locate(root, names, folders=folders, fits=looks_like_statements)
