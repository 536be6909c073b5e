"""Many runs as one: train members, predict, average families, fit a blend.

Steps that are done are not done again, a killed study continues, and a changed setting repeats only what
depends on it. A study is a YAML file; `vilio` and `vilio_tiny` come with diptych.

  run      train and predict everything, up to OUT/FIN_SPLIT.csv and the run card OUT/README.md
  status   the steps of a study: what is done, how long it took, what is left
  predict  predictions and blend of trained members, from the bundles of --bundles

try:
  diptych study run vilio_tiny root=memes members=U,ES seeds=1
  diptych study status vilio_tiny
  diptych study run vilio root=memes limit=20
  diptych study predict vilio root=memes bundles=runs/study/vilio --fast
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required

from typing_extensions import TypedDict

from diptych.cli import catalog
from diptych.cli.engine import chosen_engine, configure_engine
from diptych.cli.screen import progress, table
from diptych.cli.train import composer
from diptych.documents import closed, read_json
from diptych.errors import ConfigError, nearest

if TYPE_CHECKING:
    from diptych.study import Graph, Record, Report, Step, Study


@closed
class Call(TypedDict, total=False):
    """The settings that are remembered for a later `status`, in `call.json`."""

    root: Required[str]
    members: str | None
    seeds: int | None
    limit: int | None
    set: list[str] | None
    bundles: str | None
    fast: bool
    device: str
    precision: Literal["32", "bf16"]
    batch_size: int


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("run", "status", "predict"))
    parser.add_argument("study", help="a name of `diptych ls study`, or a YAML file")
    parser.add_argument("--root", type=Path, help="folder of the data set (status: as in the last call)")
    parser.add_argument("--out", type=Path, help="folder of the study (default: runs/study/NAME)")
    parser.add_argument("--members", help="comma-separated families and members (default: the study's own)")
    parser.add_argument("--seeds", type=int, help="at most so many members of each family")
    parser.add_argument("--limit", type=int, help="memes of every split, for a trial")
    parser.add_argument("--jobs", type=int, default=1, help="members at the same time (default: 1)")
    parser.add_argument(
        "--set", action="append", default=[], help="a word of `diptych train` for all members"
    )
    parser.add_argument("--bundles", type=Path, help="trained models as MEMBER/RUN, for predict")
    parser.add_argument("--fast", action="store_true", help="the study's best members only")
    parser.add_argument("--device", default="auto", help="for predictions (default: a GPU if there is one)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="for predictions")
    parser.add_argument("--batch-size", type=int, default=32, help="for predictions (default: 32)")
    configure_engine(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.predict import find_device
    from diptych.study import Options, run_study

    if (arguments.bundles is None) == (arguments.action == "predict"):
        verb = "needs" if arguments.action == "predict" else "takes no"
        raise ConfigError(f"diptych study {arguments.action} {verb} --bundles, the folder of trained models.")
    study = _recalled(arguments)
    graph = _graph(arguments, study)
    if arguments.action == "status":
        return _status(graph)
    began = time.perf_counter()
    with chosen_engine(arguments, device=str(find_device(arguments.device))) as engine:
        report = run_study(graph, Options(jobs=arguments.jobs, engine=engine, say=_say(graph)))
    if report.interrupted:
        print(f"stopped; {graph.out} keeps what is done. The same command continues.", file=sys.stderr)
        return 130
    return _finish(report, time.perf_counter() - began)


def find_study(name: str) -> Path:
    """The file of a study: one's own YAML, or one that comes with diptych."""
    path = catalog.CONF / "study" / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{path} does not exist; expected the YAML file of a study.")
    elif not path.is_file():
        known = catalog.names("study")
        raise ConfigError(f"there is no study {name!r}.{nearest(name, known)} There are: {', '.join(known)}.")
    return path


def _recalled(arguments: argparse.Namespace) -> "Study":
    """The study; a call remembers its settings for a later `status` that gives no root."""
    from diptych.files import atomic_file
    from diptych.study import read_study, require_own

    study = read_study(arguments.study, find_study)
    arguments.out = arguments.out or Path("runs/study") / study.name
    require_own(arguments.out)
    path = arguments.out / "steps" / "call.json"
    if arguments.root is not None:
        study = _chosen(arguments, study)
        if arguments.action != "status":
            given = {name: getattr(arguments, name) for name in Call.__annotations__}
            with atomic_file(path, "w", encoding="utf-8") as file:
                json.dump(given, file, indent=1, default=lambda place: str(place.absolute()))
        return study
    if arguments.action != "status" or not path.is_file():
        raise ConfigError(f"say root=FOLDER, the folder of the data set; {path} remembers none.")
    for name, value in read_json(path, Call, advice="Remove it, and say --root.").items():
        setattr(arguments, name, Path(str(value)) if value and name in ("root", "bundles") else value)
    return _chosen(arguments, study)


def _chosen(arguments: argparse.Namespace, study: "Study") -> "Study":
    names = arguments.members.split(",") if arguments.members else ()
    if arguments.fast and not names:
        names = study.fast
    return study.select(names, seeds=arguments.seeds)


def _graph(arguments: argparse.Namespace, study: "Study") -> "Graph":
    from diptych.study import Checksums, Planner, plan

    out = arguments.out
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit is {arguments.limit}; expected at least 1 meme.")
    root = _views(study, arguments.root, out)
    with ExitStack() as stack:
        planner = Planner(
            compose=stack.enter_context(composer()),
            checksums=Checksums(out / "steps" / "checksums.json"),
            home=arguments.root.absolute(),
            extra=tuple(arguments.set),
            bundles=arguments.bundles,
            predict={
                "precision": arguments.precision,
                "batch_size": arguments.batch_size,
                "device": arguments.device,
            },
        )
        return plan(study, root=root.absolute(), out=out.absolute(), limit=arguments.limit, planner=planner)


def _views(study: "Study", root: Path, out: Path) -> Path:
    """The folder that holds the views which the runs train on; they are made where they are missing."""
    from diptych.clean import VIEWS, clean

    needed = {*study.runs, *(["pretrain"] if any(one.pretrain for one in study.families) else [])}
    missing = sorted(view for view in needed if not (root / f"{view}.jsonl").exists())
    if study.clean is None or not missing or not set(missing) <= set(VIEWS):
        return root
    with progress("hashing pictures") as advance:
        clean(root, out / "data", **study.clean, progress=advance)
    return out / "data"


def _say(graph: "Graph") -> Any:
    from diptych.study import records_of

    total = len(graph.steps)

    def say(step: "Step", record: "Record | None") -> None:
        if record is None:
            return
        done = sum(one.state == "done" for one in records_of(graph).values())
        what = f"{record.seconds:,.0f} s" if record.state == "done" else f"failed: {record.error}"
        print(f"[{done}/{total}] {step.name}: {what}", flush=True)

    return say


def _status(graph: "Graph") -> int:
    from diptych.study import records_of, wrap_up

    whole = wrap_up(graph, list(graph.steps))
    records = records_of(whole)
    rows = list(_rows(whole, records))
    table("", ("step", "key", "state", "seconds"), rows, numbers=1)
    left = [step for step in whole.steps.values() if step.name not in records]
    times: dict[str, list[float]] = {}
    for name, record in records.items():
        times.setdefault(whole.steps[name].kind, []).append(record.seconds)
    known = [sum(times[step.kind]) / len(times[step.kind]) for step in left if step.kind in times]
    about = f", about {sum(known) / 60:,.0f} min by what was measured" if known else ""
    failed = sum(record.state == "failed" for record in records.values())
    done = len(records) - failed
    print(f"{done} of {len(whole.steps)} steps done, {failed} failed, {len(left)} left{about}")
    return 0


def _rows(graph: "Graph", records: "dict[str, Record]") -> Iterator[tuple[object, ...]]:
    for name, step in graph.steps.items():
        record = records.get(name)
        began = step.folder.exists()
        state: str = ("begun" if began else "to do") if record is None else record.state
        if record is not None and record.error:
            state = f"failed: {record.error.splitlines()[0]}"
        yield name, step.key, state, "-" if record is None else f"{record.seconds:,.1f}"


def _finish(report: "Report", seconds: float) -> int:
    from diptych.study import measure, publish, write_card, write_members

    for name in report.failed:
        print(f"failed: {name}: {report.records[name].error}", file=sys.stderr)
    areas = measure(report)
    card = write_card(report, areas)
    if report.records.get("ensemble") is None or report.records["ensemble"].state == "failed":
        print(f"no ensemble; the run card says why: {card}")
        return 1
    facts = report.records["ensemble"].facts
    name, area = facts["best_member"]
    single = max((one for one in areas if not one.endswith("/average")), key=lambda one: areas[one][0])
    fold = facts["out_of_fold"]
    verdict = "" if fold is None else "beats" if fold[0] > areas[single][0] else "does not beat"
    table(
        "",
        (f"AUROC on {facts['dev']}", ""),
        [
            (f"best single member, {single}", f"{areas[single][0]:.4f}"),
            (f"best family average, {name}", f"{area:.4f}"),
            ("blend, on the rows it was fitted on", f"{facts['in_sample'][0]:.4f}"),
            ("blend, out of fold", "-" if fold is None else f"{fold[0]:.4f}"),
        ],
        numbers=1,
    )
    if verdict:
        print(f"out of fold, the blend {verdict} its best single member")
    for path in (*publish(report.graph), write_members(report.graph)):
        print(f"wrote {path}")
    print(f"run card: {card}   ({seconds:,.0f} s)")
    return 1 if report.failed else 0
