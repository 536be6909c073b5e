"""Put runs on one page for a paper or a review: results, seeds, differences, curves, certificates, audit.

Runs that differ in nothing but their seed are one recipe: the page shows its mean, its spread, and tests of
the differences between recipes. A folder of runs stands for all runs below it; of a study, its run card and
the blend are shown, too. Results are those of the splits that the runs have predicted and that have labels.

try:
  diptych report runs/a/seed1 runs/a/seed2 runs/b/seed1 --out report.html
  diptych report runs/study/vilio --audit memes
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_out, add_overwrite, add_root
from diptych.cli.output import progress
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.audit import Audit, RunFolder
    from diptych.datasets import Data
    from diptych.predictions import Predictions


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders of runs such as a study")
    add_root(parser, "(default: the one trained on)")
    add("--audit", type=Path, metavar="ROOT", help="audit this data set, too, with the looks of these runs")
    add("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    add_out(parser, "the page (default: report.html)", default=Path("report.html"))
    add_overwrite(parser, "replace the page if it exists")
    add_data(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.audit import find_runs
    from diptych.files import reserved

    if arguments.samples < 1:
        raise ConfigError(f"--samples is {arguments.samples}; expected at least 1.")
    runs = find_runs(arguments.runs)
    root, data = _data(arguments, runs)
    # For the whole of the work, so that two calls cannot write the same page.
    with reserved(
        arguments.out, overwrite=arguments.overwrite, kind="a page of diptych", inputs=[root, *arguments.runs]
    ):
        cards, blends = _studies(arguments.runs, data, root)
        found = _audit(arguments) if arguments.audit is not None else None
        from diptych.report import report_page  # imports matplotlib, which takes a second

        left = report_page(
            runs,
            arguments.out,
            open_split=lambda split: data.open_labeled(root, split),
            cards=cards,
            blends=blends,
            audit=found,
            samples=arguments.samples,
        )
    for line in left:
        print(f"left out: {line}")
    print(f"wrote {arguments.out}: {len(runs)} run(s)")
    return 0


def _data(arguments: argparse.Namespace, runs: "list[RunFolder]") -> "tuple[Path, Data]":
    """The data set of the runs.

    Raises:
        ConfigError: the runs were trained on several data sets, or its folder is gone.
    """
    from diptych.predict import root_of_run

    # Numbers of two data sets in one table would be compared.
    kinds = {str((one.config["data"].get("train") or {}).get("_target_")): one.path for one in runs}
    if len(kinds) > 1:
        (kind, path), (other, second) = list(kinds.items())[:2]
        raise ConfigError(
            f"{path} was trained on {kind}, but {second} on {other}; a report compares runs on one data set."
        )
    # A run that has ended knows where its data lie; others say it in their settings.
    ended = next((one.path for one in runs if (one.path / "bundle").is_dir()), None)
    given = arguments.root
    if given is None and ended is None:
        given = runs[0].config.get("root")
    root = Path(given) if given is not None else root_of_run(ended or runs[0].path)
    node = dict(runs[0].config["data"].get("train") or {})
    # Where the data lie and which part was trained on are no settings of the data set.
    settings = {key: value for key, value in node.items() if key not in ("root", "split", "limit", "twice")}
    return root, chosen_data(arguments, root, settings or None, str(runs[0].path / "config.yaml"))


def _studies(
    paths: list[Path], data: "Data", root: Path
) -> "tuple[dict[str, str], dict[str, dict[str, Predictions]]]":
    """Run cards of the studies among the folders, and the predictions of their blends by split."""
    from diptych.ensemble import read_predictions
    from diptych.study import is_study

    cards, blends = {}, {}
    for path in paths:
        if is_study(path):
            card = path / "README.md"
            if card.is_file():
                cards[path.name] = card.read_text(encoding="utf-8")
            files = {file.stem.removeprefix("FIN_"): file for file in sorted(path.glob("FIN_*.csv"))}
            known = data.splits(root)
            # A file of a split that this root lacks cannot be measured.
            blends[f"blend of {path.name}"] = {
                split: read_predictions(file, dataset=data.open(root, split))
                for split, file in files.items()
                if split in known
            }
    return cards, blends


def _audit(arguments: argparse.Namespace) -> "Audit":
    from diptych.audit import audit

    # Detected from its folder: it need not be the data set of the runs.
    data = chosen_data(arguments, arguments.audit)
    with progress("reading pictures") as advance:
        return audit(arguments.audit, data, runs=arguments.runs, samples=arguments.samples, progress=advance)
