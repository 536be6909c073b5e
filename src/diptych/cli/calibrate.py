"""Make a policy from scores of labeled examples: probabilities, and what to allow, review or block.

Thresholds keep promises about new examples (--max-miss, --max-wrong-block), cost least (--costs), or fit the
reviews that people can do (--review-capacity); costs are minimized inside of what is promised. Without any of
them, at most 5 % of the positive examples are allowed, and at most 2 % of the others blocked. Take a split
that chose neither the checkpoint nor the blend; for a fitted blend, its out-of-fold scores are used.

try:
  diptych calibrate runs/a/predictions/dev_seen.npz --root memes --split dev_seen --out policy.yaml
  diptych calibrate runs/a/predictions/dev_seen.npz --root memes --split dev_seen --costs costs.yaml
  diptych predict runs/a --splits test_seen --policy policy.yaml
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data, node_of_files
from diptych.cli.options import add_data, add_json, add_out, add_overwrite, add_root
from diptych.cli.output import as_json, table
from diptych.cli.policy import about_dev, scored_file

if TYPE_CHECKING:
    from diptych.calibrate import Calibration, LabelReport, Promise, Rule, Settings
    from diptych.evaluate import Estimate


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a prediction file")
    add_root(parser, required=True)
    parser.add_argument("--split", required=True, help="the split of the predictions")
    parser.add_argument(
        "--answers", type=Path, help="file with withheld labels (default: SPLIT.answers.jsonl)"
    )
    parser.add_argument("--positive", metavar="CLASSES", help="what to find, comma-separated (default: all)")
    parser.add_argument(
        "--method", default="auto", help="identity, temperature, platt, beta, isotonic or auto (the default)"
    )
    parser.add_argument("--max-miss", type=float, help="promise: share of positives allowed, at most")
    parser.add_argument("--max-wrong-block", type=float, help="promise: share of others blocked, at most")
    parser.add_argument(
        "--delta", type=float, default=0.1, help="risk that the promises do not hold (default: 0.1)"
    )
    parser.add_argument("--costs", type=Path, help="YAML with miss, wrong_block and review")
    parser.add_argument("--review-capacity", type=float, help="share that people can review, at most")
    parser.add_argument("--groups", type=Path, help="CSV of id and groups, for a table by group")
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--kind", choices=("probability", "log_probability", "logit"), help="of a .csv")
    parser.add_argument("--plot", type=Path, help="draw reliability before and after as a PNG")
    add_out(parser, "a new file for the policy, in YAML (default: none is written)")
    add_overwrite(parser, "replace the policy and the PNG if they exist")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.calibrate import calibrate, read_groups
    from diptych.evaluate import with_targets
    from diptych.files import require_new, reserved

    settings = _settings(arguments)
    places = {"a policy": arguments.out, "a PNG picture": arguments.plot}
    # What is read must not be written over, whatever --overwrite says.
    inputs = [arguments.file, *(path for path in (arguments.costs, arguments.groups) if path is not None)]
    kept: dict[str, Any] = {"overwrite": arguments.overwrite, "inputs": inputs}
    for kind, place in places.items():
        if place is not None:
            # Before seconds of resampling; `reserved` below looks again.
            require_new(place, kind=kind, **kept)
    node, where = node_of_files([arguments.file])
    # The predictions may say of which data set they are, with its settings.
    data = chosen_data(arguments, arguments.root, node, where)
    dataset = data.open_labeled(arguments.root, arguments.split, arguments.answers)
    predictions, model, scores = scored_file(arguments.file, dataset, arguments.kind)
    joined, gold = with_targets(predictions, dataset)
    positive = arguments.positive.split(",") if arguments.positive else ()
    # The data set knows what is to be found; without this, both classes would get a rule.
    if not positive and dataset.positive is not None:
        positive = (dataset.positive,)
    calibration = calibrate(
        joined,
        gold,
        dev=about_dev(dataset, len(gold), scores),
        settings=settings,
        positive=positive,
        model=model,
        groups=None if arguments.groups is None else read_groups(arguments.groups, joined.ids),
    )
    if arguments.out is not None:
        with reserved(arguments.out, kind="a policy", **kept):
            calibration.policy.save(arguments.out)
    if arguments.plot is not None:
        from diptych.report import reliability_curves

        with reserved(arguments.plot, kind="a PNG picture", **kept):
            reliability_curves(calibration, arguments.plot)
    if arguments.json:
        as_json(calibration.as_dict())
        return 0
    _show(calibration)
    for place in filter(None, places.values()):
        print(f"wrote {place}")
    return 0


def _settings(arguments: argparse.Namespace) -> "Settings":
    from diptych.calibrate import Costs, Settings

    return Settings(
        method=arguments.method,
        max_miss=arguments.max_miss,
        max_wrong_block=arguments.max_wrong_block,
        delta=arguments.delta,
        costs=None if arguments.costs is None else Costs.load(arguments.costs),
        review_capacity=arguments.review_capacity,
        samples=arguments.samples,
    )


def _show(calibration: "Calibration") -> None:
    policy = calibration.policy
    for label, report in calibration.reports.items():
        rule = policy.labels[label]
        _show_quality(label, rule, report)
        _show_band(rule, report, policy.delta)
        _show_costs(report)
        _show_slices(report)
        for note in report.notes:
            print(f"{label}: {note}")
    scores = "out-of-fold scores" if policy.dev["scores"] == "out of fold" else "scores as predicted"
    print(
        f"{policy.dev['examples']} examples of {policy.dev['split']}, {scores}. The numbers hold for traffic "
        "like these examples; watch it with `diptych drift`. They are too good if this split also chose the "
        "checkpoint."
    )
    # Told here and not first where it is refused.
    if policy.model is None:
        print("the file does not say which model it is of, so the policy cannot be applied to a model")


def _show_quality(label: str, rule: "Rule", report: "LabelReport") -> None:
    from diptych.metrics import measure_named

    columns = (label, "as scored", "95 % interval", f"{rule.map.method}, held out", "95 % interval")
    rows = [
        (measure_named(name).title, *_cells(report.before[name]), *_cells(report.after[name]))
        for name in report.before
    ]
    tested = ("p of slope 1, intercept 0", *(cell for p in report.cox for cell in (_p(p), "")))
    table("", columns, [*rows, tested], numbers=4)
    # Empty if the method was given: then nothing was chosen.
    if report.candidates:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in report.candidates.items())
        print(f"chosen by cross-validated log loss, ties to the simpler: {rule.map.method} ({losses})")


def _show_band(rule: "Rule", report: "LabelReport", delta: float | None) -> None:
    def row(what: str, value: float | None, *more: str) -> tuple[str, ...]:
        import numpy as np

        if value is None:
            return what, "none", "", *more
        # Thresholds that allow or block everything lie a little outside of [0, 1].
        probability = float(rule.map(np.clip(np.array([value]), 0, 1))[0])
        return what, f"{value:.4f}", f"{probability:.4f}", *more

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
        rows.append(row("  read off the curve", promise.naive, f"{promise.naive_share:.1%}", "", broken))
    columns = ("threshold", "score", "probability", "share here", "bound for new", "breaks its promise")
    if rows:
        table("", columns, rows, numbers=5)
    for what, event, promise in named:
        # A missing threshold is told with what it would take.
        if promise is not None and promise.threshold is None:
            print(_missing(what, event, promise))
    if delta is not None:
        print(f"with probability {1 - delta:.0%}, the promises hold for new examples like these")
    rates = [
        (name.replace("_", " "), f"{each.value:.2%}", f"{each.low:.2%} to {each.high:.2%}")
        for name, each in report.rates.items()
    ]
    band = (row("allow below", rule.allow), row("block above", rule.block))
    table("", ("policy", "score", "probability"), band, numbers=2)
    table("", ("at this policy", "share", "95 % interval"), rates, numbers=2)


def _missing(what: str, event: str, promise: "Promise") -> str:
    kind = "positive" if event == "misses" else "negative"
    need = (
        f"label {promise.missing} more {kind} examples"
        if promise.missing
        # The extreme scores themselves fail: ties of that class at the very end.
        else f"the most extreme {kind} examples have scores beyond which nothing is left"
    )
    return f"no threshold to {what.split()[0]} keeps {event} at most {promise.limit:.1%}: {need}"


def _show_costs(report: "LabelReport") -> None:
    if not report.costs:
        return
    rows = [(name, *_cells(each, digits=1)) for name, each in report.costs.items()]
    table("", ("policy", "cost per 1,000", "95 % interval"), rows, numbers=2)
    shares = [
        (f"{each.share:.0%}", each.misses, each.wrong_blocks, f"{each.cost:.1f}")
        for each in report.capacities
    ]
    columns = ("reviewed, at most", "misses", "wrong blocks", "cost of both per 1,000")
    table("", columns, shares, numbers=3)


def _show_slices(report: "LabelReport") -> None:
    from diptych.calibrate import largest_gap

    for column in dict.fromkeys(each.column for each in report.slices):
        slices = [each for each in report.slices if each.column == column]
        columns = ("examples", "prevalence", "missed", "p", "wrongly blocked", "p", "reviewed")
        rows = [
            (each.group, each.count, _rate(each.prevalence), _rate(each.missed), _p(each.missed_p),
             _rate(each.wrongly_blocked), _p(each.wrongly_blocked_p), _rate(each.reviewed))
            for each in slices
        ]  # fmt: skip
        table("", (column, *columns), rows, numbers=len(columns))
        ranks = ("AUROC", "calibration slope", "BPSN AUC", "BNSP AUC")
        areas = [
            (each.group, _rate(each.auroc), _number(each.slope), _number(each.below), _number(each.above))
            for each in slices
        ]
        table("", (column, *ranks), areas, numbers=len(ranks))
        # A rate of a tiny class would always be the largest gap.
        smaller = [min(each.positives, each.count - each.positives) for each in slices]
        gaps = [
            largest_gap(list(zip(smaller, rates, strict=True)))
            for rates in ([each.missed for each in slices], [each.wrongly_blocked for each in slices])
        ]
        print(
            f"largest gap between groups with 30 examples of each class: misses {_number(gaps[0])} (equal "
            f"opportunity), wrong blocks {_number(gaps[1])} (predictive equality). Where prevalences differ, "
            "calibrated scores cannot have equal rates of both errors."
        )


def _cells(each: "Estimate", digits: int = 4) -> Iterator[str]:
    yield _number(each.value, digits)
    yield f"{_number(each.low, digits)} to {_number(each.high, digits)}"


def _rate(each: "Estimate") -> str:
    return f"{_number(each.value, 3)} [{_number(each.low, 3)}, {_number(each.high, 3)}]"


def _number(value: float, digits: int = 4) -> str:
    # NaN: a slice of one class has no AUROC.
    return "-" if value != value else f"{value:.{digits}f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else _number(value, 3)
