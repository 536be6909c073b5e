"""Make a policy from scores of labeled examples: probabilities, and what to allow, review or block.

Thresholds keep promises about new examples (--max-miss, --max-wrong-block), cost least (--costs), or fit the
reviews that people can do (--review-capacity); costs are minimized inside of what is promised. Without any of
them, at most 5 % of the positive examples are allowed, and at most 2 % of the others blocked. Take a split
that chose neither the checkpoint nor the blend; for a fitted blend, its out-of-fold scores are used.

try:
  diptych calibrate runs/a/predictions/dev_seen.npz --root memes --split dev_seen --out policy.yaml
  diptych calibrate runs/a/predictions/dev_seen.npz --root memes --split dev_seen --costs costs.yaml
  diptych calibrate runs/a/predictions/dev_seen.npz --root memes --split dev_seen --page policy.html
  diptych predict runs/a --splits test_seen --policy policy.yaml
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data, node_of_files
from diptych.cli.options import add_data, add_json, add_out, add_overwrite, add_root
from diptych.cli.output import as_json, table
from diptych.cli.policy import about_dev, scored_file

if TYPE_CHECKING:
    from diptych.calibrate import Settings, Shown


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
    parser.add_argument("--page", type=Path, help="also write all tables and curves as an HTML page")
    add_out(parser, "a new file for the policy, in YAML (default: none is written)")
    add_overwrite(parser, "replace the policy, the PNG and the page if they exist")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.calibrate import calibrate, policy_tables, read_groups
    from diptych.evaluate import with_targets
    from diptych.files import require_new, reserved

    settings = _settings(arguments)
    places = {
        "a policy": arguments.out,
        "a PNG picture": arguments.plot,
        "a page of diptych": arguments.page,
    }
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
    if arguments.page is not None:
        from diptych.report import policy_page

        with reserved(arguments.page, kind="a page of diptych", **kept):
            policy_page(calibration, arguments.page)
    if arguments.json:
        as_json(calibration.as_dict())
        return 0
    _show(policy_tables(calibration))
    for place in filter(None, places.values()):
        print(f"wrote {place}")
    return 0


def _show(parts: "Iterable[Shown | str]") -> None:
    for part in parts:
        if isinstance(part, str):
            print(part)
        else:
            table("", part.columns, part.rows, numbers=part.numbers)


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
