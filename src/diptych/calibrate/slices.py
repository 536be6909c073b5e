"""What a policy does to groups of examples, such as a language or a topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.calibrate.bands import Band, actions
from diptych.datasets.binary_csv import csv_records
from diptych.errors import FormatError, first_five
from diptych.evaluate.results import Estimate
from diptych.metrics import CalibrationMeasures, auroc, bootstrap_interval, wilson_interval
from diptych.predictions import respell

JUDGED = 30  # examples of each class; smaller slices are shown, and not compared with the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Measures of the examples in one group.

    Args:
        column: what the groups are, such as `language`; `group` is the name of this one.
        prevalence: share of positives, with Wilson's interval, as all rates here.
        auroc: with a bootstrap interval.
        missed: share of positives that are allowed.
        wrongly_blocked: share of negatives that are blocked.
        reviewed: share of all that goes to people.
        slope: calibration slope.
        below: AUROC of the group's negatives against all other positives (BPSN, Borkan et al., 2019): low if
            harmless examples of the group look harmful.
        above: AUROC of the group's positives against all other negatives (BNSP).
        missed_p: p-value of an equal miss rate in the rest, corrected over all groups of the column (Holm,
            1979); nan if a class has fewer than 30 examples. `wrongly_blocked_p` likewise.
    """

    column: str
    group: str
    count: int
    positives: int
    prevalence: Estimate
    auroc: Estimate
    missed: Estimate
    wrongly_blocked: Estimate
    reviewed: Estimate
    slope: float
    below: float
    above: float
    missed_p: float
    wrongly_blocked_p: float


def read_groups(path: Path, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read a CSV with the column `id` and one column per kind of group; empty cells mean no group.

    Args:
        ids: of the examples. Those without a row belong to no group.

    Returns:
        Group by column and id.

    Raises:
        FormatError: an id is unknown or occurs twice, or there is no other column.
    """
    rows: dict[str, dict[str, str]] = {}
    for line, row in csv_records(path, ("id",)):
        key = row.pop("id").strip()
        if key in rows:
            raise FormatError(f"{path}:{line}: id {key!r} occurs a second time; expected one row per id.")
        rows[key] = row
    spelled = dict(zip(respell(tuple(rows), ids), rows.values(), strict=True))
    if unknown := sorted(spelled.keys() - set(ids)):
        raise FormatError(
            f"{path}: {len(unknown)} id(s) are not among the {len(ids)} examples: {first_five(unknown)}. "
            "Expected ids of these examples only."
        )
    # An unnamed column, as programs write for row numbers, holds no groups.
    columns = [name for name in next(iter(rows.values()), {}) if name]
    if not columns:
        raise FormatError(f"{path}: there are no groups; expected a column beside id, and rows.")
    return {
        name: {key: row[name].strip() for key, row in spelled.items() if row[name].strip()}
        for name in columns
    }


def slices_of(
    scores: Float[ndarray, " N"],
    truth: Bool[ndarray, " N"],
    probabilities: Float[ndarray, " N"],
    *,
    band: Band,
    ids: Sequence[str],
    groups: Mapping[str, Mapping[str, str]],
    samples: int,
) -> tuple[Slice, ...]:
    """Measure every group of every column, in the order of their names.

    Args:
        scores: of the model, which the band divides.
        probabilities: calibrated.
        groups: by column and id.
    """
    allowed, blocked = actions(scores, band)
    found: list[Slice] = []
    for column, named in groups.items():
        # No group is "", which the members leave out.
        of = np.array([named.get(key, "") for key in ids])
        members = {str(name): of == name for name in np.unique(of) if name}
        missed = _p_values(members, allowed, among=truth, truth=truth)
        wrong = _p_values(members, blocked, among=~truth, truth=truth)
        for name, rows in members.items():
            found.append(
                Slice(
                    column=column,
                    group=name,
                    count=int(np.count_nonzero(rows)),
                    positives=int(np.count_nonzero(rows & truth)),
                    prevalence=rate(truth, rows),
                    auroc=_area(truth[rows], scores[rows], samples),
                    missed=rate(allowed, rows & truth),
                    wrongly_blocked=rate(blocked, rows & ~truth),
                    reviewed=rate(~allowed & ~blocked, rows),
                    slope=CalibrationMeasures(truth[rows], probabilities[rows]).values()["slope"],
                    # The group's own positives would hide the harm: a model may rank well inside of a group
                    # and still put its negatives above the positives of everybody else.
                    below=_against(truth, scores, (rows & ~truth) | (~rows & truth)),
                    above=_against(truth, scores, (rows & truth) | (~rows & ~truth)),
                    missed_p=missed[name],
                    wrongly_blocked_p=wrong[name],
                )
            )
    return tuple(found)


def largest_gap(rates: Sequence[tuple[int, Estimate]]) -> float:
    """Largest difference of a rate between judged slices, given with their smaller class; nan below two.

    Of miss rates it is the equal opportunity difference (Hardt et al., 2016), of wrong blocks that of
    predictive equality (Chouldechova, 2017).
    """
    values = [rate.value for smaller, rate in rates if smaller >= JUDGED]
    return max(values) - min(values) if len(values) > 1 else float("nan")


def rate(hits: Bool[ndarray, " N"], rows: Bool[ndarray, " N"]) -> Estimate:
    """Share of hits among some rows, with Wilson's interval."""
    total, count = int(np.count_nonzero(rows)), int(np.count_nonzero(hits & rows))
    # Groups are small and rates near 0, where the usual normal interval has no width.
    low, high = wilson_interval(count, total)
    return Estimate(value=count / total if total else float("nan"), low=low, high=high)


def _area(truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"], samples: int) -> Estimate:
    low, high = bootstrap_interval(truth, scores, auroc, samples=samples)
    return Estimate(value=auroc(truth, scores), low=low, high=high)


def _against(truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"], rows: Bool[ndarray, " N"]) -> float:
    return auroc(truth[rows], scores[rows]) if rows.any() else float("nan")


def _p_values(
    members: Mapping[str, Bool[ndarray, " N"]],
    hits: Bool[ndarray, " N"],
    *,
    among: Bool[ndarray, " N"],
    truth: Bool[ndarray, " N"],
) -> dict[str, float]:
    """P-values of equal rates in each group and the rest, by exact permutation and with Holm's correction."""
    raw = {
        name: permuted_rates(
            int(np.count_nonzero(hits & among & rows)),
            int(np.count_nonzero(among & rows)),
            int(np.count_nonzero(hits & among)),
            int(np.count_nonzero(among)),
        )
        for name, rows in members.items()
        if min(np.count_nonzero(rows & truth), np.count_nonzero(rows & ~truth)) >= JUDGED
    }
    corrected = dict.fromkeys(members, float("nan"))
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(raw.items(), key=lambda pair: pair[1])):
        # The smallest counts as often as there are tests; a later one is never below an earlier one.
        highest = max(highest, min(1.0, p * (len(raw) - rank)))
        corrected[name] = highest
    return corrected


def permuted_rates(hits: int, count: int, all_hits: int, total: int) -> float:
    """Two-sided p-value of equal rates in a group and the rest, over all assignments of rows to the group.

    Args:
        hits: hits in the group, of `count` rows; `all_hits` of `total` with the rest.
    """
    from scipy.stats import hypergeom

    if count in (0, total):
        return float("nan")
    # With fixed numbers of rows and hits, hits in a random group are hypergeometric; these are all values
    # that can occur.
    possible = np.arange(max(0, count - (total - all_hits)), min(count, all_hits) + 1)
    # Extreme is measured by the difference of the rates, which is what is reported, and not by how rare an
    # outcome is, as Fisher's two-sided test does.
    gaps = np.abs(possible / count - (all_hits - possible) / (total - count))
    observed = abs(hits / count - (all_hits - hits) / (total - count))
    # Rounding must not separate equal differences.
    extreme = possible[gaps >= observed - 1e-12]
    return float(min(1.0, hypergeom.pmf(extreme, total, all_hits, count).sum()))
