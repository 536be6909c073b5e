"""Blind baselines: what a linear model reaches that sees one side only, trained in seconds.

A blind baseline above chance shows that a score needs no understanding of both sides. It is a lower bound:
a larger blind model may reach more.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.audit.pictures import Grids
from diptych.audit.sheet import Sheet
from diptych.audit.twins import Twins
from diptych.data import image_keys
from diptych.evaluate import Estimate
from diptych.metrics import auroc, bootstrap_interval, wilson_interval
from diptych.predictions import Predictions
from diptych.types import RegionSource

Features = Callable[[ndarray, ndarray], tuple[Any, Any]]
"""Features of the rows to learn from and of the rows to score: arrays, or sparse matrices."""

MOST_CLASSES = 50  # answers of questions are thousands, of which most are seen once
FOLDS = 5
BLOCK = 2  # cells per side whose mean is a feature: colors of 8 x 8 areas say what a linear model can use
STEPS = 300  # of the solver; more change no decimal that matters


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A blind baseline on one split.

    Args:
        reads: `text`, `picture` (colors of areas) or `regions` (mean feature of the detected regions).
        split: on which it is measured.
        trained: on which it was trained; the same for folds of one split.
        measure: name of the measure; `value` has a bootstrap interval.
        chance: value of a model that sees nothing: 0.5, or the share of the most frequent class.
    """

    reads: str
    split: str
    trained: str
    measure: str
    value: Estimate
    chance: float

    @property
    def blind_enough(self) -> bool:
        """Whether the interval ends above chance: one side alone tells something."""
        return self.value.low > self.chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """Blind baselines with the predictions they are measured by.

    Args:
        scored: predictions by what is read and split.
        why_not: why there is none; empty otherwise.
    """

    baselines: tuple[Baseline, ...] = ()
    scored: Mapping[tuple[str, str], Predictions]
    why_not: str = ""


def blind_baselines(
    sheet: Sheet, twins: Twins, *, regions: RegionSource | None = None, samples: int = 2000
) -> Blind:
    """Train a linear model of each side on the training split, and measure it on all other labeled splits.

    Without a labeled training split, or without another labeled split, models are fitted on four fifths of a
    split and measured on the rest; examples with the same text, or the same picture, stay together.

    Args:
        regions: features of the pictures, for a third baseline.
        samples: bootstrap resamples.
    """
    classes = sorted({label for label in sheet.labels if label is not None})
    if not sheet.classes or not 2 <= len(classes) <= MOST_CLASSES:
        kind = f"{len(classes):,} different ones" if sheet.classes else "no classes"
        return Blind(
            scored={}, why_not=f"blind baselines need 2 to {MOST_CLASSES} classes; the targets are {kind}"
        )
    train = sheet.data.train if sheet.data.train in sheet.labeled else None
    measured = [split for split in sheet.labeled if split != train]
    # None without a split to learn from or to measure on; then folds of one split serve for both.
    learned = _labeled_rows(sheet, train) if train is not None and measured else None
    labels = np.array([str(label) for label in sheet.labels])
    baselines, scored = [], {}
    for reads, (features, groups) in _sides(sheet, twins, regions).items():
        for split in measured or sheet.labeled:
            rows = _labeled_rows(sheet, split)
            if learned is None:
                scores = _folded(features, labels, rows, groups[rows], classes)
            else:
                scores = _fitted(features, labels, learned, rows, classes)
            # Kept with their ids, so that a model can later be compared on exactly these examples.
            ids = tuple(sheet.ids[row] for row in rows)
            scored[reads, split] = Predictions(ids=ids, scores=scores, classes=tuple(classes))
            measure, value, chance = _measured(scores, labels[rows], classes, sheet, samples)
            baselines.append(
                Baseline(
                    reads=reads,
                    split=split,
                    trained=split if learned is None else str(train),
                    measure=measure,
                    value=value,
                    chance=chance,
                )
            )
    return Blind(baselines=tuple(baselines), scored=scored)


def _labeled_rows(sheet: Sheet, split: str) -> ndarray:
    return np.array([row for row in sheet.rows(split) if sheet.labels[row] is not None])


def _sides(sheet: Sheet, twins: Twins, regions: RegionSource | None) -> dict[str, tuple[Features, ndarray]]:
    """Features, and groups of rows that stay together, by what is read."""
    sides: dict[str, tuple[Features, ndarray]] = {}
    if any(twins.words.of):
        sides["text"] = (_words(sheet), _first(twins.words.of))
    if any(twins.pictures.of):
        sides["picture"] = (_taken(_colors(twins.grids, twins.pictures.of)), _first(twins.pictures.of))
    if regions is not None:
        sides["regions"] = (_taken(_means(sheet, regions)), _first(twins.pictures.of))
    return sides


def _first(of: list[tuple[int, ...]]) -> ndarray:
    # An example without a node shares nothing, so it is a group of its own: no node has a negative number.
    return np.array([nodes[0] if nodes else -1 - row for row, nodes in enumerate(of)])


def _words(sheet: Sheet) -> Features:
    def features(train: ndarray, rows: ndarray) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # The vocabulary of the training rows alone, as a model would have it.
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        first, second = ([sheet.texts[row] for row in some] for some in (train, rows))
        return vectorizer.fit_transform(first), vectorizer.transform(second)

    return features


def _taken(columns: Float[ndarray, "N F"]) -> Features:
    def features(train: ndarray, rows: ndarray) -> tuple[Any, Any]:
        from sklearn.preprocessing import StandardScaler

        # Scaled by the training rows alone; the others would tell something about themselves.
        scaler = StandardScaler().fit(columns[train])
        return scaler.transform(columns[train]), scaler.transform(columns[rows])

    return features


def _colors(grids: Grids, of: list[tuple[int, ...]]) -> Float[ndarray, "N F"]:
    """Mean colors of 8 x 8 areas; of several pictures one after the other, missing ones are black."""
    count, side = len(grids.colors), grids.colors.shape[1] // BLOCK
    # [P, 2 s, 2 s, 3] to [P, s, 2, s, 2, 3]; the mean over both axes of length 2 is that of 2 x 2 cells.
    areas = grids.colors.reshape(count, side, BLOCK, side, BLOCK, 3).mean(axis=(2, 4)).reshape(count, -1)
    columns = np.zeros((len(of), max(map(len, of)), areas.shape[1]), np.float32)
    for row, nodes in enumerate(of):
        columns[row, : len(nodes)] = areas[list(nodes)]
    return columns.reshape(len(of), -1)


def _means(sheet: Sheet, regions: RegionSource) -> Float[ndarray, "N F"]:
    """Mean feature of the regions of all pictures of an example; zeros where nothing was detected."""
    columns = np.zeros((len(sheet.ids), max(1, regions.meta.feature_dim)), np.float32)
    row = 0
    for dataset in sheet.datasets.values():
        for example in dataset:
            keys = [key for pair in example.pairs for key in image_keys(pair) if key in regions]
            found = [regions[key].features for key in keys if regions.count(key)]
            if found:
                columns[row] = np.concatenate(found).mean(axis=0)
            row += 1
    return columns


def _folded(
    features: Features, labels: ndarray, rows: ndarray, groups: ndarray, classes: list[str]
) -> Float[ndarray, "N C"]:
    """Probabilities of the classes, for each fold from the other folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    scores = np.zeros((len(rows), len(classes)))
    with warnings.catch_warnings():
        # Of a class with fewer members than folds, which is then absent from some of them.
        warnings.simplefilter("ignore", UserWarning)
        folds = [*StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(rows, labels[rows], groups)]
    for train, held in folds:
        scores[held] = _fitted(features, labels, rows[train], rows[held], classes)
    return scores


def _fitted(
    features: Features,
    labels: ndarray,
    train: ndarray,
    rows: ndarray,
    classes: list[str],
) -> Float[ndarray, "N C"]:
    from sklearn.linear_model import LogisticRegression

    first, second = features(train, rows)
    scores = np.zeros((len(rows), len(classes)))
    present = np.unique(labels[train])
    if len(present) < 2:  # a fold of a tiny split
        scores[:, classes.index(str(present[0]))] = 1
        return scores
    # Dense features are many and alike; without a strong penalty they would fit the noise.
    strength = 1.0 if hasattr(first, "tocsr") else 1.0 / first.shape[1]
    model = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3).fit(first, labels[train])
    # A fold may lack a class: its column keeps probability 0.
    columns = [classes.index(name) for name in model.classes_.tolist()]
    scores[:, columns] = model.predict_proba(second)
    return scores


def _measured(
    scores: Float[ndarray, "N C"], labels: ndarray, classes: list[str], sheet: Sheet, samples: int
) -> tuple[str, Estimate, float]:
    """Name of the measure, its value, and that of chance."""
    if len(classes) == 2:
        positive = sheet.data.kind.positive
        column = classes.index(positive) if positive in classes else 1
        truth = labels == classes[column]
        low, high = bootstrap_interval(truth, scores[:, column], auroc, samples=samples)
        return "auroc", Estimate(value=auroc(truth, scores[:, column]), low=low, high=high), 0.5
    right = int(np.count_nonzero(np.array(classes)[scores.argmax(axis=1)] == labels))
    low, high = wilson_interval(right, len(labels))
    most = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    return "accuracy", Estimate(value=right / len(labels), low=low, high=high), most
