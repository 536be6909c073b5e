"""Run the unfinished steps of a study: in this process, in one process per member, or with an engine."""

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
from diptych.ensemble import Members, blend, fit_blend, read_predictions, write_blend, write_predictions
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
    """Options of execution. None of them changes results.

    Args:
        jobs: number of members that run at the same time, each in its own process; 1 uses this process.
        engine: runs members elsewhere, as `diptych.scale.ray_engine` does; `jobs` is then ignored. All
            machines must see the study's files under the same paths.
        begin: called with the planned study before the first step.
        say: called with None before each step that this process runs, and with the record after each step.
        progress: returns, for the name of a preparation, a context manager that yields a function of
            (done, total).
    """

    jobs: int = 1
    engine: Engine | None = None
    begin: Callable[[Graph], None] | None = None
    say: Say | None = None
    progress: Callable[[str], AbstractContextManager[Progress | None]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Result of a study.

    Args:
        records: records of all steps of `graph` that were tried, by this call or an earlier one.
        interrupted: stopped by Ctrl-C; the same call continues.
        areas: (AUROC on dev, low, high) of members by MEMBER/RUN and of families by FAMILY/average.
        card: path of the run card; None if the study was interrupted.
        files: the final predictions and the file that `score_meme` reads; empty without a blend.
    """

    graph: Graph
    records: Mapping[str, StepRecord]
    interrupted: bool = False
    areas: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    card: Path | None = None
    files: tuple[Path, ...] = ()

    @property
    def blend(self) -> StepRecord | None:
        """Record of the blend; None if no blend was fitted."""
        record = self.records.get("ensemble")
        return None if record is None or record.state == "failed" else record

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the failed steps."""
        return tuple(name for name, record in self.records.items() if record.state == "failed")


@dataclass
class Shared:
    """Stores and tokenized texts that the steps of one process share, so that each is read once."""

    stores: dict[tuple[Any, ...], RegionSource] = field(default_factory=dict)
    texts: dict[str, dict[Any, Any]] = field(default_factory=dict)

    def store(self, settings: Mapping[str, Any], predictor: Predictor) -> RegionSource | None:
        """Return the regions that a model reads, merged as in its training; None if it reads none."""
        if not predictor.processor.regions:
            return None
        merge = predictor.bundle.provenance.get("region_merge", "vilio")  # bundles without it merged so
        names = (settings["features"], settings["more_features"], merge)
        if names not in self.stores:
            self.stores[names] = open_stores(*names)
        return self.stores[names]

    def predictor(self, settings: Mapping[str, Any]) -> Predictor:
        """Load a trained model. Its tokenizer shares a cache with those that have the same vocabulary."""
        choices = {name: settings[name] for name in ("device", "precision") if name in settings}
        predictor = load(settings["bundle"], **choices)
        tokenizer = predictor.processor.text
        if tokenizer is not None:
            memory = self.texts.setdefault(tokenizer.fingerprint, {})
            predictor.processor.text = CachedTokenizer(tokenizer, memory)  # all members read the same texts
        return predictor


def run_steps(graph: Graph, options: Options) -> Report:
    """Run all unfinished steps. A member that fails is left out of the averages; the others continue.

    Raises:
        ConfigError: another process runs this study, or `graph.out` holds something other than a study.
    """
    if options.jobs < 1:
        raise ConfigError(f"jobs is {options.jobs}; expected at least 1.")
    require_own(graph.out)
    with claimed(graph.out, lock=graph.out / "lock"):  # two calls at once would run every step twice
        try:
            local = _run_here if options.jobs == 1 else _run_in_processes
            for lanes in _phases(graph):
                (local if options.engine is None else _run_by_engine)(graph, lanes, options)
            # From the disk, because members may have run in other processes.
            done = [name for name, record in records_of(graph).items() if record.state == "done"]
            # Planned only now, because it depends on which members failed.
            whole = wrap_up(graph, done)
            # In this process: they take seconds and need the results of all members.
            tail = [step for step in whole.steps.values() if step.kind in ("average", "ensemble")]
            _run_lane(whole, tail, options.say, Shared())
        except KeyboardInterrupt:
            return Report(graph=graph, records=records_of(graph), interrupted=True)
    return Report(graph=whole, records=records_of(whole))


def records_of(graph: Graph) -> dict[str, StepRecord]:
    """Read the records of a graph's steps, by name; steps without a record are left out."""
    records = {name: read_record(graph.out / "steps", step.key) for name, step in graph.steps.items()}
    return {name: record for name, record in records.items() if record is not None}


def _phases(graph: Graph) -> Iterator[list[list[Step]]]:
    """Yield lanes in phases: a lane needs nothing but lanes of earlier phases, such as pre-training."""
    lanes: dict[str, list[Step]] = {}
    depths: dict[str, int] = {}
    for step in graph.steps.values():  # what a step needs comes before it
        # A member's steps share a lane, so that training comes before its predictions.
        lanes.setdefault(step.lane, []).append(step)
        needed = (graph.steps[name].lane for name in step.needs)
        after = [depths[lane] + 1 for lane in needed if lane != step.lane]
        depths[step.lane] = max([depths.get(step.lane, 0), *after])
    for depth in sorted(set(depths.values())):
        yield [lane for name, lane in lanes.items() if depths[name] == depth]


def _run_here(graph: Graph, lanes: Sequence[Sequence[Step]], options: Options) -> None:
    shared = Shared()
    for lane in lanes:
        _run_lane(graph, lane, options.say, shared)


def _run_by_engine(graph: Graph, lanes: Sequence[Sequence[Step]], options: Options) -> None:
    assert options.engine is not None, "checked by run_steps()"
    records = records_of(graph)
    waiting = [lane for lane in lanes if any(_open(step, records) for step in lane)]
    # numbered, because an engine returns lanes in any order
    for number in options.engine(partial(_lane_function, graph), list(enumerate(waiting))):
        _after(graph, waiting[number], 0, options.say)


def _lane_function(graph: Graph) -> LaneFunction:
    shared = Shared()

    def run(shard: tuple[int, Sequence[Step]]) -> int:
        _run_lane(graph, shard[1], None, shared)
        return shard[0]

    return run


def _run_in_processes(graph: Graph, lanes: Sequence[Sequence[Step]], options: Options) -> None:
    """Run each unfinished lane in its own process. If a process dies, only the steps of its lane fail.

    Not a `ProcessPoolExecutor`: that gives up all lanes if one process dies, and its children outlive a
    killed parent.
    """
    context = get_context("spawn")  # a fork of a process with CUDA or OpenMP threads can hang
    records = records_of(graph)
    waiting = [lane for lane in lanes if any(_open(step, records) for step in lane)]
    running: list[tuple[Any, Any, Sequence[Step]]] = []
    threads = max(1, (os.cpu_count() or 1) // options.jobs)  # more threads than cores slow down all of them
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                lane = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                args = (graph, lane, threads, os.getpid(), sender)
                process = context.Process(target=_process_main, args=args)
                process.start()
                # with our copy open, recv() would wait forever for a child that died without sending
                sender.close()
                running.append((process, receiver, lane))
            # Sleeps until a process ends, however it ends.
            wait([process.sentinel for process, _, _ in running])
            for ended in [entry for entry in running if not entry[0].is_alive()]:
                running.remove(ended)
                process, receiver, lane = ended
                with suppress(EOFError):  # the usual end: nothing was sent
                    raise receiver.recv()
                _after(graph, lane, process.exitcode, options.say)
    finally:
        for process, _, _ in running:  # SIGTERM: training saves a checkpoint, as after Ctrl-C
            process.terminate()
        for process, _, _ in running:
            process.join()


def _after(graph: Graph, lane: Sequence[Step], code: int | None, say: Say | None) -> None:
    """Report the steps of a process that ended; record those that it could not record as failed."""
    records = records_of(graph)
    for step in lane:
        if step.name not in records:
            if code == 0:  # skipped, because a step that it needs failed
                continue
            error = f"its process died with exit code {code}; was the memory full?"
            write_record(
                graph.out / "steps",
                step.key,
                StepRecord(step=step.name, state="failed", seconds=0, error=error),
            )
        if say is not None:
            say(step, records_of(graph).get(step.name))


def _process_main(graph: Graph, lane: Sequence[Step], threads: int, parent: int, sender: Connection) -> None:
    """Main function of the process of one member. The process does not outlive its parent.

    Args:
        parent: process id of the parent.
        sender: receives the exceptions that end the whole study: Ctrl-C, or a full disk.
    """

    def watch() -> None:
        while os.getppid() == parent:  # the id changes when the parent dies, even if it is killed
            time.sleep(0.5)
        os._exit(1)  # `sys.exit` would end this thread only

    threading.Thread(target=watch, daemon=True).start()  # a daemon does not keep the process alive
    torch.set_num_threads(threads)
    try:
        _run_lane(graph, lane, None, Shared())
    except KeyboardInterrupt:
        sender.send(KeyboardInterrupt())
        raise SystemExit(130) from None
    except Exception as error:
        if (full := full_disk(error)) is not None:
            sender.send(full)
        else:
            print(f"diptych: {report_internal(error, graph.out)}", file=sys.stderr)
        raise SystemExit(1) from None


def _run_lane(graph: Graph, lane: Sequence[Step], say: Say | None, shared: Shared) -> None:
    for step in lane:
        records = records_of(graph)  # anew: the step before may have failed
        if not _open(step, records):
            continue
        if any(name not in records or records[name].state == "failed" for name in step.needs):
            continue
        if say is not None:
            say(step, None)
        record = _run_step(graph, step, shared)
        write_record(graph.out / "steps", step.key, record)
        if say is not None:
            say(step, record)


def _open(step: Step, records: Mapping[str, StepRecord]) -> bool:
    """Whether a step must run: it has no record, or failed before."""
    return step.name not in records or records[step.name].state == "failed"


def _run_step(graph: Graph, step: Step, shared: Shared) -> StepRecord:
    began, work = time.perf_counter(), WORK[step.kind]
    state: dict[str, Any] = {"state": "done"}
    try:
        state["facts"] = work(graph, step, shared)
    except Exception as error:  # an error of one member must not stop the others
        if (full := full_disk(error)) is not None:  # but all members would fail on a full disk
            raise full from error
        known = isinstance(error, DiptychError)
        state = {"state": "failed", "error": str(error) if known else report_internal(error, graph.out)}
    return StepRecord(step=step.name, seconds=round(time.perf_counter() - began, 1), **state)


def _train(graph: Graph, step: Step, shared: Shared) -> dict[str, Any]:
    run = run_recipe(dict(step.settings))
    if run.interrupted:
        raise KeyboardInterrupt  # stops the study too; without a record, the step continues next time
    # The bundle has the weights; checkpoints hold the optimizer's state too, and a study has many members.
    shutil.rmtree(step.folder / "checkpoints", ignore_errors=True)
    about = read_content(step.folder / "bundle").get("provenance", {})
    training = about.get("training", {})
    return {"metrics": dict(run.metrics), "examples": training.get("examples"), "steps": about.get("steps")}


def _predict(graph: Graph, step: Step, shared: Shared) -> dict[str, Any]:
    settings, root = step.settings, Path(step.settings["root"])
    # the folder's name contains the step's key, so files in it are of the same model and data
    names = [split for split in settings["splits"] if not (step.folder / f"{split}.npz").exists()]
    predictor = shared.predictor(settings) if names else None
    for split in names:
        assert predictor is not None
        dataset = graph.data.open(root, split, limit=settings["limit"])
        store = shared.store(settings, predictor)
        predictions = predictor.predict_dataset(
            dataset, features=store, batch_size=settings.get("batch_size", 32)
        )
        dataset.write(predictions, step.folder / f"{split}{dataset.suffix}")
        predictions.save(step.folder / f"{split}.npz")  # last: it marks the split as done
    return {}


def _average(graph: Graph, step: Step, shared: Shared) -> dict[str, Any]:
    with atomic_folder(step.folder, kind="an average", overwrite=True) as folder:
        for split, files in _files(graph, step.needs).items():
            members = {name: read_predictions(path) for name, path in files.items()}
            if step.settings["compat"]:
                average = family_average(members, split, step.settings["scores"])
            else:
                average = blend([*members.values()])
            write_predictions(average, folder / f"{split}.npz")
            write_predictions(average, folder / f"{split}.csv")
    return {"members": step.settings["members"]}


def _ensemble(graph: Graph, step: Step, shared: Shared) -> dict[str, Any]:
    families = {name.partition("/")[0]: graph.steps[name] for name in step.needs}
    splits = [split for splits in graph.study.runs.values() for split in splits]
    predictions_of = {
        split: tuple(read_predictions(families[name].folder / f"{split}.npz") for name in sorted(families))
        for split in splits
    }
    members = Members(names=tuple(sorted(families)), predictions=predictions_of, dropped={})
    dev = graph.data.open(graph.root, graph.study.dev, limit=graph.limit)
    blends, report = fit_blend(
        members,
        dev.truth(),
        dev=graph.study.dev,
        method=graph.study.method,
        compat=graph.study.compat,
    )
    with atomic_folder(step.folder, kind="a blend", overwrite=True) as folder:
        write_blend(folder, blends, report)
    return report.as_dict()


def publish(graph: Graph) -> list[Path]:
    """Copy the final predictions from the ensemble's folder, whose name has a key, to the study's folder."""
    step = graph.steps["ensemble"]
    names = sorted(path.name for path in step.folder.glob("FIN_*"))
    for name in names:
        require_new(graph.out / name, overwrite=True, kind="a prediction file")
        with atomic_file(graph.out / name) as file:
            file.write((step.folder / name).read_bytes())
    return [graph.out / name for name in names]


def _files(graph: Graph, needs: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Return prediction files by split and member."""
    files: dict[str, dict[str, Path]] = {}
    for name in needs:
        step = graph.steps[name]
        for split in step.settings["splits"]:
            files.setdefault(split, {})[step.lane] = step.folder / f"{split}.npz"
    return files


WORK: dict[str, Callable[[Graph, Step, Shared], dict[str, Any]]] = {
    "pretrain": _train,
    "train": _train,
    "predict": _predict,
    "average": _average,
    "ensemble": _ensemble,
}
