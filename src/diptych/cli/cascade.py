"""Ask expensive members only where cheap ones are unsure: bands for each member, at the least cost.

MEMBERS is a YAML file: members, each with name, predictions (a file, with {split} for the split) and its cost
per example as money or milliseconds; an imported member may have its price in the predictions. At most
--max-miss of the positive examples are allowed; half of the examples of --dev find the bands, the other half
proves that they keep this promise. With --apply, a cascade decides on another split.

try:
  diptych cascade members.yaml --root memes --dev dev_seen --plot cascade.png --out cascade.yaml
  diptych cascade members.yaml --root memes --apply cascade.yaml --split test_seen --out decisions.csv
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data, node_of_files
from diptych.cli.options import add_data, add_json, add_out, add_overwrite, add_root
from diptych.cli.output import as_json, table
from diptych.cli.policy import about_dev, model_of_file, scored_file
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.calibrate import Cascade, CascadeReport, Measured, MemberNode, Unit
    from diptych.datasets import Split
    from diptych.evaluate import Estimate
    from diptych.predictions import Predictions


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("members", type=Path, help="YAML with name, predictions and costs of each member")
    add_root(parser, required=True)
    parser.add_argument("--dev", default="dev_seen", help="labeled split to fit on (default: dev_seen)")
    parser.add_argument(
        "--unit", choices=("money", "milliseconds"), default="money", help="what to save (default: money)"
    )
    parser.add_argument("--max-miss", type=float, default=0.05, help="promise: share of positives allowed")
    parser.add_argument("--max-wrong-block", type=float, help="promise: share of others blocked, at most")
    parser.add_argument(
        "--delta", type=float, default=0.1, help="risk that a promise does not hold (default: 0.1)"
    )
    parser.add_argument("--apply", type=Path, metavar="CASCADE", help="decide by this cascade on --split")
    parser.add_argument("--split", help="with --apply: the split to decide on")
    parser.add_argument(
        "--answers", type=Path, help="file with withheld labels (default: SPLIT.answers.jsonl)"
    )
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--plot", type=Path, help="draw costs and errors as a PNG")
    add_out(parser, "a new file: the cascade in YAML, or with --apply the decisions as CSV")
    add_overwrite(parser, "replace the result and the PNG if they exist")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.calibrate import read_members_file
    from diptych.files import require_new

    applied = arguments.apply is not None
    if applied != (arguments.split is not None):
        raise ConfigError("--apply and --split belong together: a cascade, and the split that it decides on.")
    if applied and arguments.plot is not None:
        raise ConfigError("--plot shows how a cascade was found; leave it out with --apply.")
    members = read_members_file(arguments.members)
    split = arguments.split if applied else arguments.dev
    # One place per member: the split fills it in, so one file of members serves both.
    paths = {one["name"]: _place(one, arguments.members, split) for one in members}
    inputs = [arguments.members, *paths.values(), *([arguments.apply] if applied else [])]
    kept: dict[str, Any] = {"overwrite": arguments.overwrite, "inputs": inputs}
    kinds = {"a prediction file" if applied else "a policy": arguments.out, "a PNG picture": arguments.plot}
    for kind, place in kinds.items():
        if place is not None:
            require_new(place, kind=kind, **kept)  # before the search; `reserved` looks again
    data = chosen_data(arguments, arguments.root, *node_of_files(paths.values()))
    dataset = data.open_labeled(arguments.root, split, arguments.answers)
    if dataset.positive is None:
        raise ConfigError(f"{dataset.name} has no positive class; a cascade needs a data set of two classes.")
    return (_apply if applied else _fit)(arguments, dataset, members, paths, kept)


def _place(member: "MemberNode", file: Path, split: str) -> Path:
    # Not `format`, by which a name in a file could reach attributes.
    return file.parent / member["predictions"].replace("{split}", split)


def _fit(
    arguments: argparse.Namespace,
    dataset: "Split",
    members: list["MemberNode"],
    paths: Mapping[str, Path],
    kept: Mapping[str, Any],
) -> int:
    import numpy as np

    from diptych.calibrate import Member, fit_cascade
    from diptych.evaluate import with_targets
    from diptych.files import reserved

    found, which, truth = [], set(), None
    for one in members:
        predictions, model, scores = scored_file(paths[one["name"]], dataset)
        _require_scores(predictions, one["name"])
        joined, gold = with_targets(predictions, dataset)
        # One fitted blend among the members is enough to call the scores out of fold.
        which.add(scores)
        truth = np.array([target == dataset.positive for target in gold], dtype=bool)
        column = joined.column(dataset.positive or "").astype(np.float64)
        cost = _cost(one, predictions, arguments.unit, arguments.members)
        found.append(Member(name=one["name"], scores=column, cost=cost, model=model))
    assert truth is not None  # there are at least two members
    report = fit_cascade(
        found,
        truth,
        unit=arguments.unit,
        positive=dataset.positive or "",
        dev=about_dev(dataset, len(truth), "out of fold" if "out of fold" in which else "as predicted"),
        max_miss=arguments.max_miss,
        max_wrong_block=arguments.max_wrong_block,
        delta=arguments.delta,
        samples=arguments.samples,
    )
    if arguments.out is not None:
        with reserved(arguments.out, kind="a policy", **kept):
            report.cascade.save(arguments.out)
    if arguments.plot is not None:
        from diptych.report import cascade_figure

        with reserved(arguments.plot, kind="a PNG picture", **kept):
            cascade_figure(report, arguments.plot)
    if arguments.json:
        as_json(report.as_dict())
        return 0
    _show(report)
    for place in filter(None, (arguments.out, arguments.plot)):
        print(f"wrote {place}")
    return 0


def _apply(
    arguments: argparse.Namespace,
    dataset: "Split",
    members: list["MemberNode"],
    paths: Mapping[str, Path],
    kept: Mapping[str, Any],
) -> int:
    import numpy as np

    from diptych.calibrate import Cascade, measured, shares_of, write_routed
    from diptych.ensemble import completed, read_predictions
    from diptych.files import reserved

    cascade = Cascade.load(arguments.apply)
    # Else harmless examples would be blocked, with the proof of the other class.
    if cascade.positive != dataset.positive:
        raise ConfigError(f"the cascade blocks {cascade.positive!r}; the data set has {dataset.positive!r}.")
    # By name: the file of members may list more, in another order.
    names = [one.name for one in cascade.stages]
    # Of the members that the cascade asks alone: the others need not be predicted at all.
    asked = {name: read_predictions(paths[name], dataset=dataset) for name in names if name in paths}
    cascade.require_models({name: model_of_file(paths[name], one) for name, one in asked.items()})
    # The first member's examples are the split; a dear one needs those alone that reach it.
    ids = dataset.ids
    whole = [one.align(ids) for one in completed([*asked.values()])[0]]
    scores = np.stack([one.column(cascade.positive) for one in whole]).astype(np.float64)
    routed = cascade.decide(scores, ids)
    if arguments.out is not None:
        with reserved(arguments.out, kind="a prediction file", **kept):
            write_routed(arguments.out, ids, routed, names)
    # New examples usually have none; then costs are told and errors are not.
    labels = dataset.truth()
    truth = np.array([labels.get(key) or 0 for key in ids]) == 1
    known = all(labels.get(key) is not None for key in ids) and truth.any() and not truth.all()
    result = measured(routed, truth, samples=arguments.samples) if known else None
    if arguments.json:
        shares = [asdict(one) for one in shares_of(cascade, routed)]
        as_json({"members": shares, "measured": None if result is None else asdict(result)})
        return 0
    _show_shares(cascade, shares_of(cascade, routed))
    if result is None:
        each = routed.cost.mean()
        print(
            f"{cascade.unit} per example: {each:.4g}; {arguments.split} has no labels, so errors are unknown"
        )
    else:
        _show_measured(cascade, {"cascade": result})
    if arguments.out is not None:
        print(f"wrote {arguments.out}: {len(ids)} examples")
    return 0


def _require_scores(predictions: "Predictions", name: str) -> None:
    if predictions.meta.get("method") == "rank":
        raise ConfigError(
            f"{name}: the scores are ranks, so the score of an example depends on the others and has no "
            "threshold. Blend with another method."
        )


def _cost(member: "MemberNode", predictions: "Predictions", unit: "Unit", file: Path) -> float:
    """Cost of an example: as the file of members says, else as an imported member paid."""
    if (said := member.get(unit)) is not None:
        return float(said)
    origin = predictions.meta.get("imported")
    key, factor = ("price", 1.0) if unit == "money" else ("seconds", 1000.0)
    paid = origin.get(key) if isinstance(origin, Mapping) else None
    if not isinstance(paid, int | float) or not 0 <= paid < float("inf") or not len(predictions):
        raise ConfigError(
            f"{file}: {member['name']} has no {unit}; expected its cost per example, or another --unit."
        )
    # What a service recorded for all answers, per example; seconds become milliseconds.
    return factor * paid / len(predictions)


def _show(report: "CascadeReport") -> None:
    cascade = report.cascade
    # The last member decides, so its second threshold would only repeat the first.
    stages = [
        (
            one.name,
            f"{one.cost:.4g}",
            _threshold(one.allow),
            "the rest" if one.decides else _threshold(one.block),
        )
        for one in cascade.stages
    ]
    table("", ("member", cascade.unit, "allow below", "block above"), stages, numbers=3)
    _show_shares(cascade, report.shares)
    alone = {f"{name} alone": one for name, one in report.alone.items()}
    _show_measured(cascade, {**alone, "cascade": report.result})
    saved, more = report.saved, report.more_wrong
    dear = [*report.alone][-1]
    if len(cascade.stages) > 1:  # else it is the last member alone
        print(
            f"the cascade saves {saved.value:.1%} of the {cascade.unit} of {dear} ({saved.low:.1%} to "
            f"{saved.high:.1%})"
        )
    print(
        f"it wrongly blocks {100 * more.value:+.1f} points more than {dear} ({100 * more.low:+.1f} to "
        f"{100 * more.high:+.1f})"
    )
    # Said only if the interval excludes 0.
    if more.low > 0 and cascade.max_wrong_block is None:
        print("--max-wrong-block promises a limit of that")
    for note in report.notes:
        print(note)
    promised = (
        "" if cascade.max_wrong_block is None else f" and wrong blocks at most {cascade.max_wrong_block:.1%}"
    )
    print(
        f"with probability {1 - cascade.delta:.0%}, misses are at most {cascade.max_miss:.1%}{promised} for "
        f"new examples like these; proven on {report.examples} examples of {cascade.dev['split']} "
        f"({report.positives} {cascade.positive}) that did not find the bands"
    )


def _show_shares(cascade: "Cascade", shares: Any) -> None:
    rows = [(one.name, *(f"{x:.1%}" for x in (one.asked, one.allowed, one.blocked))) for one in shares]
    table("", ("member", "is asked", "allows", "blocks"), rows, numbers=3)


def _show_measured(cascade: "Cascade", rows: Mapping[str, "Measured"]) -> None:
    # Prices of one example are tiny; a thousand of them is what a bill shows.
    factor, unit = (1000.0, "money per 1,000") if cascade.unit == "money" else (1.0, "milliseconds each")
    cells = [
        (name, _cell(one.cost, factor), _cell(one.missed, 100.0, "%"), _cell(one.wrongly_blocked, 100.0, "%"))
        for name, one in rows.items()
    ]
    table("", ("", unit, "missed", "wrongly blocked"), cells, numbers=3)


def _cell(one: "Estimate", factor: float, unit: str = "") -> str:
    value, low, high = (factor * each for each in (one.value, one.low, one.high))
    return f"{value:.4g}{unit}" + ("" if low == high else f" ({low:.3g} to {high:.3g})")


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
