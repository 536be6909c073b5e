"""Run a study: train members, predict, average families, fit a blend; or a chain of runs.

A study is a YAML file; `vilio` and `vilio_tiny` come with diptych. The same command continues an interrupted
study and skips finished steps. A changed setting repeats only the steps that depend on it.

  run      train and predict; writes OUT/FIN_SPLIT.csv and the run card OUT/README.md
  status   list the steps of a study: finished, seconds, remaining
  predict  predict and blend with the trained members in --bundles

try:
  diptych study run vilio_tiny root=memes members=U,ES seeds=1
  diptych study status vilio_tiny
  diptych study run vilio root=memes limit=20
  diptych study run mmbert_chain_tiny root=multi30k
  diptych study predict vilio root=memes bundles=runs/study/vilio --fast
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import say_data
from diptych.cli.engine import chosen_engine, configure_engine
from diptych.cli.options import add_batch_size, add_data, add_device, add_out, add_root
from diptych.cli.output import progress, table
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.study import Call, Graph, Report, Step, StepRecord


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("run", "status", "predict"))
    parser.add_argument("study", help="a name of `diptych ls study`, or a YAML file")
    add_root(parser, "(default for status: that of the last call)")
    add_out(parser, "folder of the study (default: runs/study/NAME)")
    parser.add_argument("--members", help="comma-separated families and members (default: the study's own)")
    parser.add_argument("--seeds", type=int, help="maximum number of members per family")
    parser.add_argument("--limit", type=int, help="maximum number of memes per split, for a trial")
    parser.add_argument("--jobs", type=int, default=1, help="members trained at the same time (default: 1)")
    parser.add_argument(
        "--set", action="append", default=[], help="setting of `diptych train` for all members, KEY=VALUE"
    )
    parser.add_argument("--bundles", type=Path, help="for predict: folder of trained models, MEMBER/RUN")
    parser.add_argument("--fast", action="store_true", help="only the members of the study's `fast` list")
    add_data(parser, settings=False)
    add_device(parser, "of predictions")
    add_batch_size(parser, "of predictions")
    configure_engine(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.predict import find_device
    from diptych.study import Options, run_study, study_status

    if (arguments.bundles is None) == (arguments.action == "predict"):
        verb = "needs" if arguments.action == "predict" else "takes no"
        raise ConfigError(f"diptych study {arguments.action} {verb} --bundles, the folder of trained models.")
    call = _call(arguments)
    if arguments.action == "status":
        # `status` writes nothing and trains nothing, so it may run beside a running study.
        options = Options(progress=progress)
        report = study_status(arguments.study, call, out=arguments.out, options=options)
        say_data(arguments, report.graph.data)
        return _show_status(report)
    if call is None:
        raise ConfigError("root is not given; add root=FOLDER, the folder of the data set.")
    began, teller = time.perf_counter(), _Teller(arguments)
    with chosen_engine(arguments, device=str(find_device(arguments.device))) as engine:
        options = Options(
            jobs=arguments.jobs, engine=engine, begin=teller.begin, say=teller.say, progress=progress
        )
        report = run_study(arguments.study, call, out=arguments.out, options=options)
    if report.interrupted:
        # 130, as the shell gives for Ctrl-C, so that scripts stop, too.
        print(f"stopped; {report.graph.out} keeps what is done. The same command continues.", file=sys.stderr)
        return 130
    return _show(report, time.perf_counter() - began)


def _call(arguments: argparse.Namespace) -> "Call | None":
    """Return the call; None without --root, for which `status` takes the last call."""
    from diptych.study import Call

    if arguments.root is None:
        return None
    return Call(
        root=arguments.root,
        members=arguments.members.split(",") if arguments.members else (),
        fast=arguments.fast,
        seeds=arguments.seeds,
        limit=arguments.limit,
        overrides=arguments.set,
        bundles=arguments.bundles,
        data=arguments.data,
        device=arguments.device,
        precision=arguments.precision,
        batch_size=arguments.batch_size,
    )


class _Teller:
    """Prints a line for each finished step."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def begin(self, graph: "Graph") -> None:
        self.graph = graph
        say_data(self.arguments, graph.data)

    def say(self, step: "Step", record: "StepRecord | None") -> None:
        from diptych.study import records_of

        if record is None:  # the step begins
            return
        # Counted from the records on disk: several processes may work on one study.
        done = sum(past.state == "done" for past in records_of(self.graph).values())
        what = f"{record.seconds:,.0f} s" if record.state == "done" else f"failed: {record.error}"
        print(f"[{done}/{len(self.graph.steps)}] {step.name}: {what}", flush=True)


def _show_status(report: "Report") -> int:
    whole, records = report.graph, report.records
    table("", ("step", "key", "state", "seconds"), list(_rows(report)), numbers=1)
    left = [step for step in whole.steps.values() if step.name not in records]
    times: dict[str, list[float]] = {}  # by kind: a training takes hours, an average takes seconds
    for name, record in records.items():
        times.setdefault(whole.steps[name].kind, []).append(record.seconds)
    # Kinds of which no step is done have no estimate and are left out.
    known = [sum(times[step.kind]) / len(times[step.kind]) for step in left if step.kind in times]
    about = f", estimated {sum(known) / 60:,.0f} min from the steps done" if known else ""
    failed = len(report.failed)
    done = len(records) - failed
    print(f"{done} of {len(whole.steps)} steps done, {failed} failed, {len(left)} left{about}")
    return 0


def _rows(report: "Report") -> Iterator[tuple[object, ...]]:
    for name, step in report.graph.steps.items():
        record = report.records.get(name)
        began = step.folder.exists()
        # A folder without a record is of a step that runs, or was interrupted.
        state: str = ("begun" if began else "to do") if record is None else record.state
        if record is not None and record.error:
            state = f"failed: {record.error.splitlines()[0]}"
        yield name, step.key, state, "-" if record is None else f"{record.seconds:,.1f}"


def _show(report: "Report", seconds: float) -> int:
    for name in report.failed:
        print(f"failed: {name}: {report.records[name].error}", file=sys.stderr)
    if report.graph.study.links:
        for step in report.graph.steps.values():
            if step.name not in report.failed and step.name in report.records:
                print(f"{step.name}: {step.folder}")
        print(f"run card: {report.card}   ({seconds:,.0f} s)")
        return 1 if report.failed else 0
    if report.blend is None:
        print(f"no blend; see the run card for the reason: {report.card}")
        return 1
    facts, areas = report.blend.facts, report.areas
    name, area = facts["best_member"]
    # Best of the members alone: a family average is an ensemble already.
    single = max(
        (member for member in areas if not member.endswith("/average")), key=lambda member: areas[member][0]
    )
    fold = facts["out_of_fold"]
    verdict = "" if fold is None else "beats" if fold[0] > areas[single][0] else "does not beat"
    table(
        "",
        (f"AUROC on {facts['dev']}", ""),
        [
            (f"best single member, {single}", f"{areas[single][0]:.4f}"),
            (f"best family average, {name}", f"{area:.4f}"),
            ("blend, in sample", f"{facts['in_sample'][0]:.4f}"),
            ("blend, out of fold", "-" if fold is None else f"{fold[0]:.4f}"),
        ],
        numbers=1,
    )
    if verdict:
        print(f"out of fold, the blend {verdict} its best single member")
    for path in report.files:
        print(f"wrote {path}")
    print(f"run card: {report.card}   ({seconds:,.0f} s)")
    return 1 if report.failed else 0  # the blend exists, but scripts must notice the missing members
