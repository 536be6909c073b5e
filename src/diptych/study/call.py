"""A study in one call: planned, run up to the blend, and asked how far it is."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Required

from typing_extensions import TypedDict

from diptych.datasets import Data, find_data
from diptych.documents import closed, read_json
from diptych.errors import ConfigError
from diptych.files import atomic_file
from diptych.study.card import measure, write_card
from diptych.study.graph import Graph, Planner, plan, wrap_up
from diptych.study.progress import Checksums, require_own
from diptych.study.run import Options, Report, publish, records_of, run_steps
from diptych.study.score import write_members
from diptych.study.settings import Study, read_study

Precision = Literal["32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked of a study; its folder remembers the last one.

    Args:
        root: folder of the data set.
        members: families and members by name; none means the study's `default`.
        fast: those of the study's `fast` list, where `members` names none.
        seeds: at most so many members of each family; None means all.
        limit: examples of every split, for a trial; None means all.
        overrides: words of `diptych train` for all members.
        bundles: folder of trained models as MEMBER/RUN; nothing is trained then.
        data: name of the data set; None tells it from the files in `root`.
        device: of predictions, and so are `precision` and `batch_size`, in examples.
    """

    root: Path | str
    members: Sequence[str] = ()
    fast: bool = False
    seeds: int | None = None
    limit: int | None = None
    overrides: Sequence[str] = ()
    bundles: Path | str | None = None
    data: str | None = None
    device: str = "auto"
    precision: Precision = "32"
    batch_size: int = 32


@closed
class CallNode(TypedDict, total=False):
    """The file of a `Call`."""

    root: Required[str]
    members: str | None
    seeds: int | None
    limit: int | None
    set: list[str] | None
    bundles: str | None
    fast: bool
    device: str
    precision: Precision
    batch_size: int
    data: str | None


def run_study(
    name: str, call: Call, *, out: Path | str | None = None, options: Options | None = None
) -> Report:
    """Train and predict all that is not done, blend it, and write the final predictions and the run card.

        report = run_study("vilio_tiny", Call(root="memes", members=["U", "ES"], seeds=1))
        print(report.areas["U/average"], report.files)

    A call that is stopped or killed continues when it is made again. A member that fails is left out of the
    blend, and `Report.failed` names its steps.

    Args:
        name: of a study that comes with diptych, or the path of a YAML file.
        out: folder of the study (default: runs/study/NAME).

    Raises:
        ConfigError: a setting cannot work, something is missing, `out` holds other things, or another process
            works on this study.
        OSError: the disk is full.
    """
    options = options or Options()
    study, out = _opened(name, out)
    study = _chosen(study, call)
    _remember(call, out)
    graph = _planned(study, call, out, options)
    if options.begin is not None:
        options.begin(graph)
    report = run_steps(graph, options)
    if report.interrupted:
        return report
    report = replace(report, areas=measure(report))
    files = () if report.blend is None else (*publish(report.graph), write_members(report.graph))
    return replace(report, card=write_card(report), files=files)


def study_status(
    name: str, call: Call | None = None, *, out: Path | str | None = None, options: Options | None = None
) -> Report:
    """All steps of a study, and the records of those that were tried; nothing is run.

    Args:
        call: None means the last one that was run.
        options: only `progress` is looked at.

    Raises:
        ConfigError: as `run_study`; or no call is remembered.
    """
    study, out = _opened(name, out)
    call = call or _remembered(out)
    graph = _planned(_chosen(study, call), call, out, options or Options())
    whole = wrap_up(graph, list(graph.steps))
    return Report(graph=whole, records=records_of(whole))


def _opened(name: str, out: Path | str | None) -> tuple[Study, Path]:
    study = read_study(name)
    out = Path(out) if out is not None else Path("runs/study") / study.name
    require_own(out)
    return study, out


def _chosen(study: Study, call: Call) -> Study:
    if call.limit is not None and call.limit < 1:
        raise ConfigError(f"limit is {call.limit}; expected at least 1 example.")
    names = call.members or (study.fast if call.fast else ())
    return study.select(names, seeds=call.seeds)


def _file(out: Path) -> Path:
    return out / "steps" / "call.json"


def _remember(call: Call, out: Path) -> None:
    node: CallNode = {
        "root": str(Path(call.root).absolute()),
        "members": ",".join(call.members) or None,
        "seeds": call.seeds,
        "limit": call.limit,
        "set": list(call.overrides),
        "bundles": None if call.bundles is None else str(Path(call.bundles).absolute()),
        "fast": call.fast,
        "device": call.device,
        "precision": call.precision,
        "batch_size": call.batch_size,
        "data": call.data,
    }
    with atomic_file(_file(out), "w", encoding="utf-8") as file:
        json.dump(node, file, indent=1)


def _remembered(out: Path) -> Call:
    path = _file(out)
    if not path.is_file():
        raise ConfigError(f"say root=FOLDER, the folder of the data set; {path} remembers none.")
    node = dict(read_json(path, CallNode, advice="Remove it, and say --root."))
    members, overrides = str(node.pop("members", None) or ""), node.pop("set", None)
    return Call(**node, members=members.split(",") if members else (), overrides=overrides or ())  # type: ignore[arg-type]


def _planned(study: Study, call: Call, out: Path, options: Options) -> Graph:
    home = Path(call.root)
    data = find_data(home, name=call.data)
    root = _views(study, home, out, data, options)
    planner = Planner(
        checksums=Checksums(out / "steps" / "checksums.json"),
        home=home.absolute(),
        extra=tuple(call.overrides),
        bundles=None if call.bundles is None else Path(call.bundles),
        predict={"precision": call.precision, "batch_size": call.batch_size, "device": call.device},
    )
    return plan(study, root=root.absolute(), out=out.absolute(), limit=call.limit, planner=planner, data=data)


def _views(study: Study, root: Path, out: Path, data: Data, options: Options) -> Path:
    """The folder that holds the views which the runs train on; they are made where they are missing."""
    needed = {*study.runs, *(["pretrain"] if any(one.pretrain for one in study.families) else [])}
    missing = sorted(view for view in needed if not (root / f"{view}.jsonl").exists())
    if study.clean is None or not missing or not set(missing) <= set(data.kind.views):
        return root
    opened = nullcontext(None) if options.progress is None else options.progress("hashing pictures")
    with opened as advance:
        data.kind.clean(root, out / "data", **study.clean, progress=advance)
    return out / "data"
