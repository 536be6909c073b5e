"""What a policy does and how good it is, as tables and sentences; for terminals and pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diptych.calibrate.fit import Calibration, LabelReport
from diptych.calibrate.policy import Rule
from diptych.calibrate.promises import Promise
from diptych.calibrate.slices import largest_gap
from diptych.evaluate import Estimate
from diptych.metrics import measure_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A table; the last `numbers` columns are numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int


def policy_tables(calibration: Calibration) -> Iterator[Shown | str]:
    """Tell what a policy does and how good it is, label by label: tables, and sentences between them."""
    policy = calibration.policy
    for label, report in calibration.reports.items():
        rule = policy.labels[label]
        # First what is done and what it costs, then how good the probabilities behind it are.
        yield from _band(label, rule, report, policy.delta)
        yield from _costs(report)
        yield from _quality(label, rule, report)
        yield from _slices(report)
        for note in report.notes:
            yield f"{label}: {note}"
    scores = "out-of-fold scores" if policy.dev["scores"] == "out of fold" else "scores as predicted"
    yield (
        f"{policy.dev['examples']} examples of {policy.dev['split']}, {scores}. The numbers hold for traffic "
        "like these examples; watch it with `diptych drift`. They are too good if this split also chose the "
        "checkpoint."
    )
    # Told here and not first where it is refused.
    if policy.model is None:
        yield "the file does not say which model it is of, so the policy cannot be applied to a model"


def _quality(label: str, rule: Rule, report: LabelReport) -> Iterator[Shown | str]:
    columns = (label, "as scored", "95 % interval", f"{rule.map.method}, held out", "95 % interval")
    rows = [
        (measure_named(name).title, *_cells(report.before[name]), *_cells(report.after[name]))
        for name in report.before
    ]
    tested = ("p of slope 1, intercept 0", *(cell for p in report.cox for cell in (_p(p), "")))
    yield _shown(columns, [*rows, tested], numbers=4)
    # Empty if the method was given: then nothing was chosen.
    if report.candidates:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in report.candidates.items())
        yield f"chosen by cross-validated log loss, ties to the simpler: {rule.map.method} ({losses})"


def _band(label: str, rule: Rule, report: LabelReport, delta: float | None) -> Iterator[Shown | str]:
    def row(what: str, value: float | None, *more: str) -> tuple[str, ...]:
        if value is None:
            return what, "none", "", *more
        # Thresholds that allow or block everything lie a little outside of [0, 1].
        probability = float(rule.map(np.clip(np.array([value]), 0, 1))[0])
        return what, f"{value:.4f}", f"{probability:.4f}", *more

    rates = [
        (name.replace("_", " "), f"{each.value:.2%}", f"{each.low:.2%} to {each.high:.2%}")
        for name, each in report.rates.items()
    ]
    band = (row("allow below", rule.allow), row("block above", rule.block))
    yield _shown((f"policy for {label}", "score", "probability"), band, numbers=2)
    yield _shown(("at this policy", "share", "95 % interval"), rates, numbers=2)
    rows = []
    named = (("allow below", "misses", report.allow), ("block above", "wrong blocks", report.block))
    for what, event, promise in named:
        if promise is None:
            continue
        rows.append(
            row(
                f"{what}, {event} at most {promise.limit:.1%}",
                promise.threshold,
                f"{promise.share:.1%}",
                "none" if promise.threshold is None else f"{promise.bound:.1%}",
                "" if promise.threshold is None else f"at most {promise.delta:.0%}",
            )
        )
        # Below each promise the usual threshold, so that its risk is seen beside it.
        broken = f"{promise.naive_broken:.0%}"
        rows.append(
            row("the same, read off the curve", promise.naive, f"{promise.naive_share:.1%}", "", broken)
        )
    columns = ("threshold", "score", "probability", "share here", "bound for new", "breaks its promise")
    if rows:
        yield _shown(columns, rows, numbers=5)
    for what, event, promise in named:
        # A missing threshold is told with what it would take.
        if promise is not None and promise.threshold is None:
            yield _missing(what, event, promise)
    if delta is not None:
        yield f"with probability {1 - delta:.0%}, the promises hold for new examples like these"


def _missing(what: str, event: str, promise: Promise) -> str:
    kind = "positive" if event == "misses" else "negative"
    need = (
        f"label {promise.missing} more {kind} examples"
        if promise.missing
        # The extreme scores themselves fail: ties of that class at the very end.
        else f"the most extreme {kind} examples have scores beyond which nothing is left"
    )
    return f"no threshold to {what.split()[0]} keeps {event} at most {promise.limit:.1%}: {need}"


def _costs(report: LabelReport) -> Iterator[Shown | str]:
    if not report.costs:
        return
    rows = [(name, *_cells(each, digits=1)) for name, each in report.costs.items()]
    yield _shown(("policy", "cost per 1,000", "95 % interval"), rows, numbers=2)
    shares = [
        (f"{each.share:.0%}", each.misses, each.wrong_blocks, f"{each.cost:.1f}")
        for each in report.capacities
    ]
    columns = ("reviewed, at most", "misses", "wrong blocks", "cost of both per 1,000")
    yield _shown(columns, shares, numbers=3)


def _slices(report: LabelReport) -> Iterator[Shown | str]:
    for column in dict.fromkeys(each.column for each in report.slices):
        slices = [each for each in report.slices if each.column == column]
        columns = ("examples", "prevalence", "missed", "p", "wrongly blocked", "p", "reviewed")
        rows = [
            (each.group, each.count, _rate(each.prevalence), _rate(each.missed), _p(each.missed_p),
             _rate(each.wrongly_blocked), _p(each.wrongly_blocked_p), _rate(each.reviewed))
            for each in slices
        ]  # fmt: skip
        yield _shown((column, *columns), rows, numbers=len(columns))
        ranks = ("AUROC", "calibration slope", "BPSN AUC", "BNSP AUC")
        areas = [
            (each.group, _rate(each.auroc), _number(each.slope), _number(each.below), _number(each.above))
            for each in slices
        ]
        yield _shown((column, *ranks), areas, numbers=len(ranks))
        # A rate of a tiny class would always be the largest gap.
        smaller = [min(each.positives, each.count - each.positives) for each in slices]
        gaps = [
            largest_gap(list(zip(smaller, rates, strict=True)))
            for rates in ([each.missed for each in slices], [each.wrongly_blocked for each in slices])
        ]
        yield (
            f"largest gap between groups with 30 examples of each class: misses {_number(gaps[0])} (equal "
            f"opportunity), wrong blocks {_number(gaps[1])} (predictive equality). Where prevalences differ, "
            "calibrated scores cannot have equal rates of both errors."
        )


def _cells(each: Estimate, digits: int = 4) -> Iterator[str]:
    yield _number(each.value, digits)
    yield f"{_number(each.low, digits)} to {_number(each.high, digits)}"


def _rate(each: Estimate) -> str:
    return f"{_number(each.value, 3)} [{_number(each.low, 3)}, {_number(each.high, 3)}]"


def _number(value: float, digits: int = 4) -> str:
    # NaN: a slice of one class has no AUROC.
    return "-" if value != value else f"{value:.{digits}f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else _number(value, 3)


def _shown(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: int) -> Shown:
    plain = tuple(tuple(map(str, row)) for row in rows)
    return Shown(columns=tuple(columns), rows=plain, numbers=numbers)
