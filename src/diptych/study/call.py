"""Run a whole study with one call, or report its status."""

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
    """Arguments of one call of a study. The study's folder records those of the last call.

    Args:
        root: folder of the data set.
        members: names of families and members; empty means the study's `default`.
        fast: use the study's `fast` list if `members` is empty.
        seeds: maximum number of members per family; None means all.
        limit: maximum number of examples per split, for a trial; None means all.
        overrides: overrides of `diptych train`, such as `optim.lr=1e-4`, for all members.
        bundles: folder of trained models as MEMBER/RUN; with it, nothing is trained.
        data: name of the data set; None detects it from the files in `root`.
        device: device of predictions. `precision` and `batch_size` (in examples) apply to predictions too.
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
    """JSON form of a `Call`."""

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
    """Run all unfinished steps of a study, and write the final predictions and the run card.

        report = run_study("vilio_tiny", Call(root="memes", members=["U", "ES"], seeds=1))
        print(report.areas["U/average"], report.files)

    An interrupted study continues with the next call. A member that fails is left out of the blend, and
    `Report.failed` names its steps.

    Args:
        name: name of a study that comes with diptych, or the path of a YAML file.
        out: folder of the study (default: runs/study/NAME).

    Raises:
        ConfigError: a setting is invalid, an input is missing, `out` holds something other than this study,
            or another process runs it.
        OSError: the disk is full.
    """
    options = options or Options()
    study, out = _opened(name, out)
    study = _chosen(study, call)  # checks the call before it is recorded
    _remember(call, out)
    graph = _planned(study, call, out, options)
    # After planning: from here on, the call itself cannot be wrong.
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
    """Return all steps of a study and the records of those that were tried. Runs nothing.

    Args:
        call: None means the last call of `run_study`.
        options: only `progress` is used.

    Raises:
        ConfigError: as in `run_study`; or `call` is None and no call is recorded.
    """
    study, out = _opened(name, out)
    call = call or _remembered(out)
    graph = _planned(_chosen(study, call), call, out, options or Options())
    whole = wrap_up(graph, list(graph.steps))  # as if every member succeeds
    return Report(graph=whole, records=records_of(whole))


def _opened(name: str, out: Path | str | None) -> tuple[Study, Path]:
    study = read_study(name)
    out = Path(out) if out is not None else Path("runs/study") / study.name
    require_own(out)
    return study, out


def _chosen(study: Study, call: Call) -> Study:
    if call.limit is not None and call.limit < 1:
        raise ConfigError(f"limit is {call.limit}; expected at least 1 example.")
    if study.links and call.bundles is not None:
        raise ConfigError(f"study {study.name} is a chain, which predicts nothing; use its runs.")
    # Named members win over the fast preset.
    names = call.members or (study.fast if call.fast else ())
    return study.select(names, seeds=call.seeds)


def _file(out: Path) -> Path:
    return out / "steps" / "call.json"


def _remember(call: Call, out: Path) -> None:
    node: CallNode = {
        "root": str(Path(call.root).absolute()),  # `status` may be called from another folder
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
    # written before any other file: `require_own` knows a study's folder by its `steps/*.json`
    with atomic_file(_file(out), "w", encoding="utf-8") as file:
        json.dump(node, file, indent=1)


def _remembered(out: Path) -> Call:
    path = _file(out)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist, so the data set is unknown; add root=FOLDER.")
    node = dict(read_json(path, CallNode, advice="Remove it, and add --root."))
    members, overrides = str(node.pop("members", None) or ""), node.pop("set", None)
    return Call(**node, members=members.split(",") if members else (), overrides=overrides or ())  # type: ignore[arg-type]


def _planned(study: Study, call: Call, out: Path, options: Options) -> Graph:
    home = Path(call.root)
    data = find_data(home, name=call.data)
    root = _views(study, home, out, data, options)
    # absolute, because the steps may run in other processes and on other machines
    planner = Planner(
        checksums=Checksums(out / "steps" / "checksums.json"),
        home=home.absolute(),
        extra=tuple(call.overrides),
        bundles=None if call.bundles is None else Path(call.bundles),
        predict={"precision": call.precision, "batch_size": call.batch_size, "device": call.device},
    )
    return plan(study, root=root.absolute(), out=out.absolute(), limit=call.limit, planner=planner, data=data)


def _views(study: Study, root: Path, out: Path, data: Data, options: Options) -> Path:
    """Return the folder that holds the training views; make missing views below `out`."""
    needed = {*study.runs, *(["pretrain"] if any(family.pretrain for family in study.families) else [])}
    missing = sorted(view for view in needed if not (root / f"{view}.jsonl").exists())
    # A missing view that cleaning does not make either is reported later, by the data set, with its name.
    if study.clean is None or not missing or not set(missing) <= set(data.kind.views):
        return root
    opened = nullcontext(None) if options.progress is None else options.progress("hashing pictures")
    with opened as advance:
        data.kind.clean(root, out / "data", **study.clean, progress=advance)
    # Below the study: the data set itself is never changed.
    return out / "data"
