"""Tables of runs that differ in their seed: mean and spread of each recipe, and tests of the differences."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from diptych.evaluate import Repeats, repeated
from diptych.metrics import measure_named
from diptych.predictions import Predictions
from diptych.report.markup import interval, paragraph, table
from diptych.types import Dataset

PAIRED = 6  # runs of a recipe that are tested in pairs: 15 rows


def seed_tables(found: Repeats) -> Iterator[str]:
    """Mean, spread and range of each recipe, and the differences of recipes."""
    title = measure_named(found.measure).title
    rows = [
        (
            name,
            str(len(one.values)),
            interval(one.mean, 4),
            "" if math.isnan(one.spread) else f"{one.spread:.4f}",
            f"{min(one.values):.4f} to {max(one.values):.4f}" if len(one.values) > 1 else "",
        )
        for name, one in found.recipes.items()
    ]
    yield table(("recipe", "seeds", f"mean {title}", "spread", "range"), rows, numbers=range(1, 5))
    if found.contrasts:
        yield _differences("difference of means", found)
    yield paragraph(
        f"{found.count:,} examples. Intervals resample examples, the same for all, and seeds within each "
        "recipe. Spread: standard deviation between seeds. P-values are not corrected for several pairs.",
        note=True,
    )


def paired_tables(
    by_recipe: Mapping[str, Mapping[str, Predictions]],
    targets: Mapping[str, Any] | Dataset,
    *,
    positive: str | None = None,
    samples: int = 2000,
) -> Iterator[str]:
    """Tests of the runs of each recipe against each other: do seeds differ by more than chance?

    Args:
        by_recipe: predictions of the split by recipe and run.
        targets: and all others as in `repeated`.
    """
    several = {recipe: runs for recipe, runs in by_recipe.items() if len(runs) > 1}
    for recipe, runs in several.items():
        # Each run for itself, so that only examples are resampled, the same for both.
        tested = {name: [runs[name]] for name in [*runs][:PAIRED]}
        found = repeated(tested, targets, positive=positive, samples=samples)
        yield _differences(f"difference of runs of {recipe}", found)
        if len(runs) > PAIRED:
            yield paragraph(f"Of {len(runs)} runs, the first {PAIRED} are tested in pairs.", note=True)
    if several:
        yield paragraph(
            "Runs of one recipe in pairs, on the same examples; intervals resample examples alone. A small p "
            "means that two seeds differ by more than the choice of examples explains.",
            note=True,
        )


def _differences(heading: str, found: Repeats) -> str:
    tested = [
        (
            f"{one.first} \N{MINUS SIGN} {one.second}",
            f"{one.difference.value:+.4f}",
            f"{one.difference.low:+.4f} to {one.difference.high:+.4f}",
            "< 0.001" if one.p < 0.001 else f"{one.p:.3f}",
        )
        for one in found.contrasts
    ]
    title = measure_named(found.measure).title
    return table((heading, title, "95 % interval", "p"), tested, numbers=range(1, 4))
