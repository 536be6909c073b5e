"""Do the steps of a study that are not done: in this process, or with a process for each member."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from diptych.bundle import read_content
from diptych.ensemble import Members, blend, fit_blend, read_predictions, write_predictions
from diptych.ensemble.vilio import family_average
from diptych.errors import ConfigError, DiptychError, full_disk, report_internal
from diptych.features import open_stores
from diptych.files import atomic_file, atomic_folder, claimed, require_new
from diptych.predict import Predictor, load
from diptych.recipe import run_recipe
from diptych.study.graph import Graph, Step, wrap_up
from diptych.study.progress import StepRecord, read_record, require_own, write_record
from diptych.text import CachedTokenizer
from diptych.types import Progress, RegionSource

Say = Callable[[Step, StepRecord | None], None]
LaneFunction = Callable[[tuple[int, Sequence[Step]]], int]
Engine = Callable[[Callable[[], LaneFunction], Sequence[tuple[int, Sequence[Step]]]], Iterable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How steps are run; none of this changes what they compute.

    Args:
        jobs: members at the same time, each in a process; 1 runs all in this one.
        engine: runs members somewhere, as `diptych.scale.ray_engine` does; `jobs` is passed over then. All
            machines must see the study's files under the same paths.
        begin: called with the planned study before the first step.
        say: called before (with None) and after each step that is run here.
        progress: opens, for what takes long before that, what is called with (done, all).
    """

    jobs: int = 1
    engine: Engine | None = None
    begin: Callable[[Graph], None] | None = None
    say: Say | None = None
    progress: Callable[[str], AbstractContextManager[Progress | None]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a study.

    Args:
        records: of every step of `graph` that was tried, now or before.
        interrupted: stopped by Ctrl-C; the same call continues.
        areas: AUROC on dev and its interval, of members by MEMBER/RUN and of families by FAMILY/average.
        card: the run card; None of a study that did not come to its end.
        files: the final predictions, and what `score_meme` reads; none where there is no blend.
    """

    graph: Graph
    records: Mapping[str, StepRecord]
    interrupted: bool = False
    areas: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    card: Path | None = None
    files: tuple[Path, ...] = ()

    @property
    def blend(self) -> StepRecord | None:
        """The record of the blend; None where there is none."""
        record = self.records.get("ensemble")
        return None if record is None or record.state == "failed" else record

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.records.items() if one.state == "failed")


@dataclass
class Workshop:
    """What steps of one process share: every store is opened once, every text is tokenized once."""

    stores: dict[tuple[Any, ...], RegionSource] = field(default_factory=dict)
    texts: dict[str, dict[Any, Any]] = field(default_factory=dict)

    def store(self, settings: Mapping[str, Any], predictor: Predictor) -> RegionSource | None:
        """The regions that a model reads, merged as they were when it was trained."""
        if not predictor.processor.regions:
            return None
        merge = predictor.bundle.provenance.get("region_merge", "vilio")
        names = (settings["features"], settings["more_features"], merge)
        if names not in self.stores:
            self.stores[names] = open_stores(*names)
        return self.stores[names]

    def predictor(self, settings: Mapping[str, Any]) -> Predictor:
        choices = {name: settings[name] for name in ("device", "precision") if name in settings}
        predictor = load(settings["bundle"], **choices)
        tokenizer = predictor.processor.text
        if tokenizer is not None:
            memory = self.texts.setdefault(tokenizer.fingerprint, {})
            predictor.processor.text = CachedTokenizer(tokenizer, memory)
        return predictor


def run_steps(graph: Graph, options: Options) -> Report:
    """Do everything that is not done. A member that fails is left out of the averages; the rest goes on.

    Raises:
        ConfigError: another process works on this study, or `graph.out` holds other things.
    """
    if options.jobs < 1:
        raise ConfigError(f"jobs is {options.jobs}; expected at least 1.")
    require_own(graph.out)
    with claimed(graph.out, lock=graph.out / "lock"):
        try:
            local = _run_here if options.jobs == 1 else _run_beside
            for lanes in _phases(graph):
                (local if options.engine is None else _run_by_engine)(graph, lanes, options)
            whole = wrap_up(graph, [name for name, one in records_of(graph).items() if one.state == "done"])
            tail = [step for step in whole.steps.values() if step.kind in ("average", "ensemble")]
            _run_lane(whole, tail, options.say, Workshop())
        except KeyboardInterrupt:
            return Report(graph=graph, records=records_of(graph), interrupted=True)
    return Report(graph=whole, records=records_of(whole))


def records_of(graph: Graph) -> dict[str, StepRecord]:
    """What is known of the steps of a graph, by name."""
    found = {name: read_record(graph.out / "steps", step.key) for name, step in graph.steps.items()}
    return {name: record for name, record in found.items() if record is not None}


def _phases(graph: Graph) -> Iterator[list[list[Step]]]:
    """Pre-training first, then the members, who do not wait for each other."""
    for early in (True, False):
        lanes: dict[str, list[Step]] = {}
        for step in graph.steps.values():
            if (step.kind == "pretrain") == early:
                lanes.setdefault(step.lane, []).append(step)
        if lanes:
            yield list(lanes.values())


def _run_here(graph: Graph, lanes: Sequence[Sequence[Step]], options: Options) -> None:
    workshop = Workshop()
    for lane in lanes:
        _run_lane(graph, lane, options.say, workshop)


def _run_by_engine(graph: Graph, lanes: Sequence[Sequence[Step]], options: Options) -> None:
    assert options.engine is not None, "else it is run here"
    records = records_of(graph)
    waiting = [lane for lane in lanes if any(_open(step, records) for step in lane)]
    for number in options.engine(partial(_lane_function, graph), list(enumerate(waiting))):
        _after(graph, waiting[number], 0, options.say)


def _lane_function(graph: Graph) -> LaneFunction:
    workshop = Workshop()

    def run(shard: tuple[int, Sequence[Step]]) -> int:
        _run_lane(graph, shard[1], None, workshop)
        return shard[0]

    return run


def _run_beside(graph: Graph, lanes: Sequence[Sequence[Step]], options: Options) -> None:
    """A process for each lane that has something to do; one that dies fails its steps only.

    A `ProcessPoolExecutor` gives up on all lanes when one process dies, and its children outlive a killed
    parent.
    """
    context = get_context("spawn")
    records = records_of(graph)
    waiting = [lane for lane in lanes if any(_open(step, records) for step in lane)]
    running: list[tuple[Any, Any, Sequence[Step]]] = []
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                lane = waiting.pop(0)
                heard, told = context.Pipe(duplex=False)
                args = (graph, lane, threads, os.getpid(), told)
                process = context.Process(target=_run_apart, args=args)
                process.start()
                told.close()  # the child's end alone is open, so that `heard` ends with it
                running.append((process, heard, lane))
            wait([process.sentinel for process, _, _ in running])
            for ended in [one for one in running if not one[0].is_alive()]:
                running.remove(ended)
                process, heard, lane = ended
                with suppress(EOFError):
                    raise heard.recv()
                _after(graph, lane, process.exitcode, options.say)
    finally:
        for process, _, _ in running:  # they save a checkpoint on Ctrl-C and on this
            process.terminate()
        for process, _, _ in running:
            process.join()


def _after(graph: Graph, lane: Sequence[Step], code: int | None, say: Say | None) -> None:
    """Tell what a process did; one that was killed could not say why."""
    records = records_of(graph)
    for step in lane:
        if step.name not in records:
            if code == 0:
                continue
            error = f"its process died with exit code {code}; was the memory full?"
            write_record(
                graph.out / "steps",
                step.key,
                StepRecord(step=step.name, state="failed", seconds=0, error=error),
            )
        if say is not None:
            say(step, records_of(graph).get(step.name))


def _run_apart(graph: Graph, lane: Sequence[Step], threads: int, parent: int, told: Connection) -> None:
    """The body of a process for one member; it does not outlive the process that started it.

    Args:
        told: takes what ends the whole study: Ctrl-C, or a full disk.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        _run_lane(graph, lane, None, Workshop())
    except KeyboardInterrupt:
        told.send(KeyboardInterrupt())
        raise SystemExit(130) from None
    except Exception as error:
        if (full := full_disk(error)) is not None:
            told.send(full)
        else:
            print(f"diptych: {report_internal(error, graph.out)}", file=sys.stderr)
        raise SystemExit(1) from None


def _run_lane(graph: Graph, lane: Sequence[Step], say: Say | None, workshop: Workshop) -> None:
    for step in lane:
        records = records_of(graph)
        if not _open(step, records):
            continue
        if any(name not in records or records[name].state == "failed" for name in step.needs):
            continue
        if say is not None:
            say(step, None)
        record = _run_step(graph, step, workshop)
        write_record(graph.out / "steps", step.key, record)
        if say is not None:
            say(step, record)


def _open(step: Step, records: Mapping[str, StepRecord]) -> bool:
    """Not done; what failed is tried again."""
    return step.name not in records or records[step.name].state == "failed"


def _run_step(graph: Graph, step: Step, workshop: Workshop) -> StepRecord:
    began, work = time.perf_counter(), WORK[step.kind]
    state: dict[str, Any] = {"state": "done"}
    try:
        state["facts"] = work(graph, step, workshop)
    except Exception as error:  # one member's trouble, whatever it is, is not the others'
        if (full := full_disk(error)) is not None:  # but this one is
            raise full from error
        known = isinstance(error, DiptychError)
        state = {"state": "failed", "error": str(error) if known else report_internal(error, graph.out)}
    return StepRecord(step=step.name, seconds=round(time.perf_counter() - began, 1), **state)


def _train(graph: Graph, step: Step, workshop: Workshop) -> dict[str, Any]:
    run = run_recipe(dict(step.settings))
    if run.interrupted:
        raise KeyboardInterrupt
    shutil.rmtree(step.folder / "checkpoints", ignore_errors=True)  # the bundle is there; these are large
    about = read_content(step.folder / "bundle").get("provenance", {})
    training = about.get("training", {})
    return {"metrics": dict(run.metrics), "examples": training.get("examples"), "steps": about.get("steps")}


def _predict(graph: Graph, step: Step, workshop: Workshop) -> dict[str, Any]:
    settings, root = step.settings, Path(step.settings["root"])
    names = [split for split in settings["splits"] if not (step.folder / f"{split}.npz").exists()]
    predictor = workshop.predictor(settings) if names else None
    for split in names:
        assert predictor is not None
        dataset = graph.data.open(root, split, limit=settings["limit"])
        store = workshop.store(settings, predictor)
        predictions = predictor.predict_dataset(
            dataset, features=store, batch_size=settings.get("batch_size", 32)
        )
        dataset.write(predictions, step.folder / f"{split}{dataset.suffix}")
        predictions.save(step.folder / f"{split}.npz")
    return {}


def _average(graph: Graph, step: Step, workshop: Workshop) -> dict[str, Any]:
    with atomic_folder(step.folder, kind="an average", overwrite=True) as folder:
        for split, files in _files(graph, step.needs).items():
            found = {name: read_predictions(path) for name, path in files.items()}
            if step.settings["compat"]:
                average = family_average(found, split, step.settings["scores"])
            else:
                average = blend([*found.values()])
            write_predictions(average, folder / f"{split}.npz")
            write_predictions(average, folder / f"{split}.csv")
    return {"members": step.settings["members"]}


def _ensemble(graph: Graph, step: Step, workshop: Workshop) -> dict[str, Any]:
    families = {name.partition("/")[0]: graph.steps[name] for name in step.needs}
    splits = [split for splits in graph.study.runs.values() for split in splits]
    found = {
        split: tuple(read_predictions(families[name].folder / f"{split}.npz") for name in sorted(families))
        for split in splits
    }
    members = Members(names=tuple(sorted(families)), predictions=found, dropped={})
    dev = graph.data.open(graph.root, graph.study.dev, limit=graph.limit)
    blends, report = fit_blend(
        members,
        dev.truth(),
        dev=graph.study.dev,
        method=graph.study.method,
        compat=graph.study.compat,
    )
    with atomic_folder(step.folder, kind="a blend", overwrite=True) as folder:
        for split, predictions in blends.items():
            write_predictions(predictions, folder / f"FIN_{split}.csv")
        (folder / "report.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    return report.as_dict()


def publish(graph: Graph) -> list[Path]:
    """Copy the files of the ensemble to where people look for them."""
    step = graph.steps["ensemble"]
    names = sorted(path.name for path in step.folder.glob("FIN_*.csv"))
    for name in names:
        require_new(graph.out / name, overwrite=True, kind="a prediction file")
        with atomic_file(graph.out / name) as file:
            file.write((step.folder / name).read_bytes())
    return [graph.out / name for name in names]


def _files(graph: Graph, needs: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Prediction files by split and member."""
    files: dict[str, dict[str, Path]] = {}
    for name in needs:
        step = graph.steps[name]
        for split in step.settings["splits"]:
            files.setdefault(split, {})[step.lane] = step.folder / f"{split}.npz"
    return files


WORK: dict[str, Callable[[Graph, Step, Workshop], dict[str, Any]]] = {
    "pretrain": _train,
    "train": _train,
    "predict": _predict,
    "average": _average,
    "ensemble": _ensemble,
}
