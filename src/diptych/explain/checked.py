"""Checks the explanations of many examples, and sums up what was found."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.evaluate import Estimate
from diptych.explain.checks import METHODS, STAGES, Removal, removal, sanity
from diptych.explain.evidence import evidence_of
from diptych.explain.planted import Swaps, Truth, deciding, hits, needs_evidence, swap_test
from diptych.explain.variants import Variants
from diptych.types import Example

SANE = 16  # examples of the sanity check, which explains each of them three times more
DRAWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of some examples."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the checks of many explanations have found.

    Args:
        defaults: examples that are answered without any evidence as with it.
        curves: mean removal curves by method, and of random orders.
        deletion: area under the deletion curve by method: small is good. `insertion`: large is good.
        margin: insertion minus deletion; 0 for random orders.
        sanity: mean rank correlation with explanations by shuffled weights, by method and stage.
        swaps: answers that change with other evidence; empty where the evidence is not known.
        words: explanations whose strongest word decides, by method, of answers that change when the words
            that decide are hidden; `areas` the same of picture areas, and `chance` the share of words and
            areas that decide.
    """

    examples: int
    defaults: int
    curves: dict[str, Removal]
    deletion: dict[str, Estimate]
    insertion: dict[str, Estimate]
    margin: dict[str, Estimate]
    sanity: dict[str, dict[str, float]]
    swaps: dict[str, Share]
    words: dict[str, Share]
    areas: dict[str, Share]
    chance: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """All numbers as JSON values; None for those that are undefined."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def check(
    every: Iterable[Variants],
    *,
    truths: Mapping[str, Truth] | None = None,
    memes: Mapping[str, Example] | None = None,
    sane: int = SANE,
    seed: int = 0,
) -> Checked:
    """Explain examples and check the explanations.

    Args:
        truths: what decides each example, where it is known; see `read_truth`.
        memes: all examples of the split by id, for their siblings.
        sane: number of examples of the sanity check.
    """
    curves: list[dict[str, Removal]] = []
    sanities: list[dict[str, dict[str, float]]] = []
    swapped: list[Swaps] = []
    found: dict[str, list[dict[str, bool]]] = {"word": [], "area": []}
    chances: dict[str, list[float]] = {"word": [], "area": []}
    defaults = 0
    for number, variants in enumerate(every):
        why = evidence_of(variants)
        defaults += why.default
        if why.players:
            curves.append(removal(variants, why, seed=seed))
        if number < sane:
            sanities.append(sanity(variants, why, seed=seed))
        truth = (truths or {}).get(why.id)
        if truth is None or memes is None or truths is None:
            continue
        if {truth["sibling_picture"], truth["sibling_text"]} <= memes.keys() & truths.keys():
            swapped.append(swap_test(variants, truths, memes))
        decides = deciding(variants, truth)
        hit = hits(why, decides, METHODS)
        # Object names are of the picture, and no areas.
        areas = np.array([one.kind == "regions" for one in why.players], bool)
        for side, own, of_side in (("word", why.of_text, hit.word), ("area", areas, hit.area)):
            # Each side for itself: a model may read a hidden text as one of the two kinds, and then texts of
            # this kind add nothing.
            if of_side is not None and needs_evidence(variants, decides & own):
                found[side].append(of_side)
                chances[side].append(_mean(decides[own]))
    return Checked(
        examples=number + 1,
        defaults=defaults,
        curves={name: _mean_curve([one[name] for one in curves]) for name in (curves or [{}])[0]},
        sanity=_sane(sanities),
        swaps=_swaps(swapped),
        words=_hits(found["word"]),
        areas=_hits(found["area"]),
        chance={name: _mean(np.array(values)) for name, values in chances.items() if values},
        **_areas(curves, seed),
    )


def _areas(curves: list[dict[str, Removal]], seed: int) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = {"deletion": {}, "insertion": {}, "margin": {}}
    for name in (curves or [{}])[0]:
        areas = np.array([one[name].areas for one in curves])
        for what, values in (
            ("deletion", areas[:, 0]),
            ("insertion", areas[:, 1]),
            ("margin", areas[:, 1] - areas[:, 0]),
        ):
            found[what][name] = _estimate(values, seed)
    return found


def _estimate(values: Float[ndarray, " N"], seed: int) -> Estimate:
    """Mean over examples, and its bootstrap interval."""
    rows = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[rows].mean(1), (0.025, 0.975)).tolist()
    return Estimate(value=float(values.mean()), low=low, high=high)


def _mean_curve(some: list[Removal]) -> Removal:
    return Removal(
        deletion=np.mean([one.deletion for one in some], axis=0),
        insertion=np.mean([one.insertion for one in some], axis=0),
    )


def _sane(some: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        method: {stage: _mean(np.array([one[method][stage] for one in some])) for stage in STAGES}
        for method in (some or [{}])[0]
    }


def _swaps(some: list[Swaps]) -> dict[str, Share]:
    found = {}
    for name in ("picture", "text", "subject", "scenery"):
        values = [value for one in some if (value := getattr(one, name)) is not None]
        if values:
            found[name] = Share(count=sum(values), total=len(values))
    return found


def _hits(some: list[dict[str, bool]]) -> dict[str, Share]:
    return {
        method: Share(count=sum(one[method] for one in own), total=len(own))
        for method in METHODS
        if (own := [one for one in some if method in one])
    }


def _mean(values: ndarray) -> float:
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, ndarray):
        return value.tolist()
    # NaN is no JSON.
    return None if isinstance(value, float) and np.isnan(value) else value
