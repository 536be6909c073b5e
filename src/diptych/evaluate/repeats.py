"""Recipes that were trained several times, with different seeds: means, spreads and differences.

Intervals are of two levels: examples are resampled, the same for all models, and seeds are resampled within
each recipe. So they say what to expect of another seed on other examples. With few seeds, resampling them
understates their spread; with one seed, an interval knows nothing about seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import ConfigError
from diptych.evaluate.form import Options
from diptych.evaluate.measuring import FORMS, as_compared, form_of, with_targets
from diptych.evaluate.results import Estimate
from diptych.metrics.uncertainty import percentiles, resampled_values
from diptych.predictions import Predictions
from diptych.types import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A measure of one recipe.

    Args:
        values: of each run.
        mean: with its interval.
        spread: standard deviation between runs; nan for one run.
    """

    values: tuple[float, ...]
    mean: Estimate
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The difference of two recipes' means, `first` minus `second`; `p` is two-sided, from the resamples."""

    first: str
    second: str
    difference: Estimate
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Recipes on the same examples.

    Args:
        measure: main measure of the form of decision.
        recipes: by name; `contrasts` are of all pairs.
        count: number of examples.
    """

    measure: str
    recipes: Mapping[str, Repeated]
    contrasts: tuple[Contrast, ...]
    count: int


def repeated(
    recipes: Mapping[str, Sequence[Predictions]],
    targets: Mapping[str, Any] | Dataset,
    *,
    positive: str | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Repeats:
    """Measure recipes by their main measure, and test their differences.

    Args:
        recipes: predictions of each run, by name of the recipe.
        targets: as in `evaluate`.
        samples: number of bootstrap resamples.

    Raises:
        ConfigError: a recipe has no run.
        FormatError: as in `evaluate`.
    """
    if empty := [name for name, runs in recipes.items() if not runs] or ([] if recipes else ["recipes"]):
        raise ConfigError(f"{empty[0]} has no predictions; expected those of at least one run.")
    joined: list[Predictions] = []
    gold: list[Any] = []
    for runs in recipes.values():
        for one in runs:
            found, gold = with_targets(one, targets)
            joined.append(as_compared(found, targets))
    options = Options(positive=positive)
    kind = form_of(joined[0], gold, options, None)
    form = FORMS[kind](joined, gold, options)
    name, measure = next(iter(form.measures.items()))
    # [samples, runs]: a resample takes the same examples for all runs, so differences are paired.
    drawn = resampled_values(measure, form.strata, sets=len(joined), samples=samples, seed=seed)
    generator = np.random.default_rng(seed)
    results, means, at = {}, {}, 0
    for recipe, runs in recipes.items():
        # The runs of a recipe lie side by side, in the order in which they were joined.
        columns = drawn[:, at : at + len(runs)]
        values = tuple(form.value(name, at + number) for number in range(len(runs)))
        at += len(runs)
        # In every resample, as many runs as there are, drawn with repetition.
        chosen = generator.integers(len(runs), size=columns.shape)
        means[recipe] = np.take_along_axis(columns, chosen, axis=1).mean(axis=1)
        low, high = percentiles(means[recipe])
        results[recipe] = Repeated(
            values=values,
            mean=Estimate(value=float(np.mean(values)), low=low, high=high),
            # Divided by n - 1: few seeds are a sample of all.
            spread=float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
        )
    contrasts = [_contrast(*pair, results, means) for pair in combinations(recipes, 2)]
    return Repeats(measure=name, recipes=results, contrasts=tuple(contrasts), count=len(gold))


def _contrast(
    first: str, second: str, results: Mapping[str, Repeated], means: Mapping[str, Float[ndarray, " S"]]
) -> Contrast:
    gaps = means[first] - means[second]
    # A resample may hold one class, of which an AUROC is undefined.
    gaps = gaps[~np.isnan(gaps)]
    low, high = percentiles(gaps)
    value = results[first].mean.value - results[second].mean.value
    # The share of resamples on the other side of 0, twice; one is added, as a p-value is never 0.
    beyond = min(np.count_nonzero(gaps <= 0), np.count_nonzero(gaps >= 0))
    p = min(1.0, 2 * (int(beyond) + 1) / (len(gaps) + 1))
    return Contrast(first=first, second=second, difference=Estimate(value=value, low=low, high=high), p=p)
