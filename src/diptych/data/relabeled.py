"""A data set with other targets than its own: an ensemble's probabilities, or further labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diptych.data.stream import ids_of, targets_of
from diptych.errors import ConfigError, first_five
from diptych.predictions import Predictions, likeliest
from diptych.types import Dataset, Example


@dataclass(frozen=True, eq=False)
class Relabeled:
    """The examples of a data set with changed targets or meta, by id.

    It has no columns of its own, so whatever looks at all examples sees the changed ones.

    Args:
        targets: replace those of the data set.
        meta: is added to that of the data set.
        beside: files that these were read from.
    """

    dataset: Dataset
    targets: Mapping[str, Any]
    meta: Mapping[str, Mapping[str, Any]]
    beside: tuple[Path, ...] = ()

    @classmethod
    def soft(
        cls,
        dataset: Dataset,
        predictions: Predictions,
        labels: Sequence[str],
        *,
        share: int | float,
        where: Path,
    ) -> "Relabeled":
        """Mix the labels with the probabilities of a prediction file, for distillation.

        Args:
            share: share of the probabilities in a target, in (0, 1]; the rest is on the example's own label.
                An example without a label gets the probabilities alone.

        Raises:
            ConfigError: the file lacks examples or classes, or its scores are no probabilities.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"task.soft_share is {share}; expected more than 0, and at most 1.")
        if predictions.scores is None or sorted(predictions.classes or ()) != sorted(labels):
            raise ConfigError(
                f"{where} has the classes {predictions.classes}; expected scores of {tuple(labels)}."
            )
        _require_all(ids_of(dataset), predictions.ids, where)
        classes = tuple(predictions.classes or ())
        rows = dict(zip(predictions.ids, predictions.scores.tolist(), strict=True))
        targets = dict[str, dict[str, float]]()
        for index in range(len(dataset)):
            example = dataset[index]
            row = rows[example.id]
            if min(row) < 0 or abs(sum(row) - 1) > 1e-3:
                raise ConfigError(
                    f"{where}: example {example.id} has the scores {row}; expected probabilities of classes."
                )
            whole = 1.0 if example.target is None else share
            # Exactly 1, since scores of a file are rounded.
            target = {name: whole * value / sum(row) for name, value in zip(classes, row, strict=True)}
            if whole < 1:
                target[likeliest(example.target)] += 1 - whole
            targets[example.id] = target
        return cls(dataset, targets, {}, (where,))

    @classmethod
    def fine(cls, dataset: Dataset, fine: Dataset, names: Sequence[str]) -> "Relabeled":
        """Add fine-grained labels to the meta of examples, as `fine`: 1 or 0 for each of `names`.

        Raises:
            ConfigError: no example has such labels.
        """
        meta = {
            key: {"fine": {name: float(value.get(name, 0.0)) for name in names}}
            for key, value in targets_of(fine)
            if value is not None
        }
        if not meta.keys() & set(ids_of(dataset)):
            raise ConfigError("data.fine has labels of no training example; expected the same ids.")
        return cls(dataset, {}, meta, getattr(fine, "files", ()))

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the data set was read from; empty if it does not say."""
        return (*getattr(self.dataset, "files", ()), *self.beside)

    @property
    def node(self) -> dict[str, Any] | None:
        """Config that opens any split of the data set again; None if it does not say."""
        return getattr(self.dataset, "node", None)

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the feature stores of the data set."""
        return getattr(self.dataset, "stores", ())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        example = self.dataset[index]
        return replace(
            example,
            target=self.targets.get(example.id, example.target),
            meta={**example.meta, **self.meta.get(example.id, {})},
        )

    def write(self, predictions: Predictions, path: Path) -> None:
        self.dataset.write(predictions, path)


def _require_all(ids: Sequence[str], known: Sequence[str], where: object) -> None:
    there = set(known)
    lacking = [one for one in ids if one not in there]
    if lacking:
        raise ConfigError(
            f"{where} lacks {len(lacking)} of {len(ids)} training examples: {first_five(lacking)}. "
            "Soft targets are predictions of the training split, such as those out of fold."
        )
