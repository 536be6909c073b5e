"""Find out what can be believed: copies across splits, confounders, blind baselines, noise, looks, slices.

Reads all splits and pictures, trains models that see one side only (seconds), and writes OUT, a page that
needs no network; its first part is a list of findings. With --predictions, scores are compared with the blind
baselines, on confounders and in groups; with --runs, the looks at each split are counted. The exit code is 1
if a finding is an error: a number that cannot be believed.

With --robust, a model is attacked instead: words and pictures of --split are changed as people see through,
and AUROC and flipped answers are measured.

try:
  diptych audit memes
  diptych audit memes --predictions runs/a/predictions/dev_seen.npz --runs runs --out audit.html
  diptych audit memes --second second.csv --groups tags.csv --predictions a.npz --policy policy.yaml
  diptych audit runs/a --robust --split dev_seen --plot robust.png
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli import robust
from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_json, add_out, add_overwrite, add_policy
from diptych.cli.output import as_json, progress
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.audit import Audit
    from diptych.types import RegionSource


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("root", type=Path, help="folder of a data set; with --robust, a run or a bundle")
    add("--splits", help="comma-separated (default: all, without cleaned views)")
    add(
        "--predictions",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="of a labeled split; repeatable",
    )
    add(
        "--runs",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="a run, or a folder of runs; repeatable",
    )
    add("--second", type=Path, metavar="FILE", help="CSV of id,label: second labels of some examples")
    add("--groups", type=Path, help="CSV of id and groups, for slices")
    add("--features", type=Path, help="feature store (default: ROOT/features)")
    add("--limit", type=int, help="read only so many examples of each split")
    add("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    add_out(parser, "the page (default: audit.html; none with --json)")
    add_overwrite(parser, "replace the page if it exists")
    add_policy(parser)
    add_data(parser)
    add_json(parser)
    robust.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.files import reserved

    for name in ("samples", "limit"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; expected at least 1.")
    if arguments.robust:
        return robust.run(arguments)
    # A program that reads JSON asked for no page.
    out = arguments.out or (None if arguments.json else Path("audit.html"))
    if out is None:
        found = audited(arguments, arguments.root)
    else:
        # What is read must not be written over, whatever --overwrite says.
        inputs = [arguments.root, *arguments.predictions, *arguments.runs]
        with reserved(out, overwrite=arguments.overwrite, kind="a page of diptych", inputs=inputs):
            found = audited(arguments, arguments.root)
            # Imports matplotlib, which takes a second.
            from diptych.report import audit_page

            audit_page(found, out)
    if arguments.json:
        as_json(found.as_dict())
    else:
        _show(found)
        print(f"wrote {out}")
    # So that a pipeline can stop where a number cannot be believed.
    return int(any(one.severity == "error" for one in found.findings))


def audited(arguments: argparse.Namespace, root: Path) -> "Audit":
    """Audit a folder with the options of a verb that has those of this one."""
    from diptych.audit import audit
    from diptych.calibrate import Policy

    data = chosen_data(arguments, root)
    with progress("reading pictures") as advance:
        return audit(
            root,
            data,
            splits=arguments.splits.split(",") if arguments.splits else None,
            predictions=arguments.predictions,
            runs=arguments.runs,
            policy=None if arguments.policy is None else Policy.load(arguments.policy),
            groups=arguments.groups,
            second=arguments.second,
            regions=_regions(arguments.features, root),
            limit=arguments.limit,
            samples=arguments.samples,
            progress=advance,
        )


def _regions(given: Path | None, root: Path) -> "RegionSource | None":
    from diptych.features import FeatureStore

    # Regions are one more baseline; a data set without a store is audited all the same.
    if given is None and not (root / "features" / "index.arrow").is_file():
        return None
    return FeatureStore(given or root / "features")


def _show(found: "Audit") -> None:
    for one in found.findings:
        examples = f": {', '.join(one.examples)}" if one.examples else ""
        print(f"{one.severity}: {one.what} ({one.count:,}){examples}\n    {one.advice}")
    # A measure that is missing must not pass for one without a finding.
    for line in found.skipped:
        print(f"not measured: {line}")
    counts = {name: sum(one.severity == name for one in found.findings) for name in ("error", "warning")}
    print(f"{counts['error']} error(s), {counts['warning']} warning(s)")
