"""A folder of pictures into feature stores: shard by shard, so that a stopped run loses one shard at most.

features/
|-- vgattr.extract/      while it runs: the plan, and a record of every finished shard
|-- vgattr36.partial/    while it runs: the shards of a store
|-- vgattr36/            the store, when all are there
`-- vgattr36.json        its report: settings, counts, the pictures left out and why
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch

from diptych.detect.extractor import Extractor, ExtractSettings, Item, build_extractor
from diptych.detect.listing import PictureFile, list_pictures
from diptych.detect.progress import ExtractionProgress, Shard, ShardResult, StoreReport
from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.features import Fault, PartWriter
from diptych.types import Progress

LARGEST = 100_000  # shards, as many as five digits number
T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # pictures that every reading thread may be ahead

OnBad = Literal["stop", "skip"]
ShardFunction = Callable[[Shard], ShardResult]
Engine = Callable[[Callable[[], ShardFunction], Sequence[Shard]], Iterable[ShardResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """What an extraction came to.

    Args:
        computed: pictures that this run looked at; the others were there from an earlier one.
        seconds: wall time of this run.
    """

    stores: tuple[StoreReport, ...]
    computed: int
    seconds: float


def extract(
    images: Path | str,
    out: Path | str,
    settings: ExtractSettings,
    *,
    device: str = "cpu",
    bad: OnBad = "stop",
    shard: int = 128,
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Write the regions of all pictures to one store per rule, from one pass over each picture.

    In order of the paths. The same pictures, settings, processor and number of threads: the same bytes.

    Args:
        images: a folder, or a .txt file of paths; see `list_pictures`.
        out: the folder of the stores.
        bad: `stop` at the first picture that cannot be used, or `skip` it and say so in the report.
        shard: pictures per file of a store.
        workers: threads that read pictures ahead of the network.
        resume: go on from the shards that an earlier run finished, if any.
        overwrite: replace stores of these names at the end; without `resume` also discard what was left.
        engine: runs the shards somewhere; None means here, one after the other.
        progress: called with (pictures done, pictures in all).

    Raises:
        ConfigError: something stands in the way, or an earlier run had other settings.
        FormatError: a picture cannot be used, or none can.
    """
    begin = time.perf_counter()
    pictures, state = list_pictures(images), ExtractionProgress(Path(out), settings)
    shards = _shards(pictures, shard)
    plan = state.plan(pictures, shard)
    if resume and (reports := state.finished(plan)) is not None:
        state.sweep()
        return ExtractReport(stores=tuple(reports), computed=0, seconds=time.perf_counter() - begin)
    with state.opened(plan, resume=resume, overwrite=overwrite):
        records = {one.number: state.recorded(one.number) for one in shards}
        finished = {number: done for number, done in records.items() if done is not None}
        missing = [one for one in shards if one.number not in finished]
        before = sum(done.pictures for done in finished.values())
        counter = _Counter(before, len(pictures), progress)
        build = partial(shard_function, state, device=device, bad=bad, workers=workers)
        if engine is not None:
            results = engine(build, missing)
        else:
            results = map(build(advance=counter.add), missing) if missing else ()
        for done in results:
            finished[done.number] = done
            counter.finish_shard(done.pictures)
        faults = [fault for number in sorted(finished) for fault in finished[number].bad]
        state.finish(plan, faults, overwrite=overwrite)
    reports = state.finished(plan)
    assert reports is not None, "written above"
    seconds = time.perf_counter() - begin
    return ExtractReport(stores=tuple(reports), computed=len(pictures) - before, seconds=seconds)


def shard_function(
    state: ExtractionProgress,
    *,
    device: str = "cpu",
    bad: OnBad = "stop",
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> ShardFunction:
    """Load the network; returns the function that turns a list of pictures into a finished shard.

    It is the same function wherever it runs, and does nothing for a shard that is recorded already.
    """
    extractor = build_extractor(state.settings, device=device)
    return partial(extract_shard, extractor=extractor, state=state, bad=bad, workers=workers, advance=advance)


def extract_shard(
    shard: Shard,
    *,
    extractor: Extractor,
    state: ExtractionProgress,
    bad: OnBad = "stop",
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> ShardResult:
    """Write one shard of every store.

    Raises:
        FormatError: a picture cannot be used and `bad` is `stop`; nothing of the shard is kept.
        DiptychError: the disk is full, or the device's memory.
    """
    if (done := state.recorded(shard.number)) is not None:
        return done
    faults: list[Fault] = []
    try:
        with ExitStack() as stack:
            writers = [
                stack.enter_context(PartWriter(state.out / name, shard.number, meta))
                for name, meta in extractor.stores.items()
            ]
            items: list[Item] = []
            for number, found in enumerate(_ahead(partial(_read, extractor), shard.pictures, workers), 1):
                if isinstance(found, Fault):
                    faults.append(found)
                else:
                    items.append(found)
                if len(items) == extractor.batch or number == len(shard.pictures):
                    faults += _write(extractor, items, writers)
                    items = []
                if faults and bad == "stop":
                    raise FormatError(
                        f"{faults[0]} Say bad=skip to go on without such pictures, and resume=true to go on."
                    )
                if advance is not None:
                    advance(1)
        done = ShardResult(shard.number, len(shard.pictures), tuple(faults))
        state.record(done)
    except OSError as error:
        raise DiptychError(
            f"cannot write {error.filename or state.out}: {error.strerror}. Finished shards are kept; "
            "resume=true goes on."
        ) from error
    except torch.OutOfMemoryError as error:
        raise DiptychError(
            f"{extractor.device} has too little memory for {extractor.batch} pictures at a time."
        ) from error
    return done


def _read(extractor: Extractor, source: PictureFile) -> Item | Fault:
    try:
        return extractor.read(source)
    except FormatError as error:
        return Fault(0, source.key, str(error))


def _write(extractor: Extractor, items: Sequence[Item], writers: Sequence[PartWriter]) -> Iterator[Fault]:
    """Compute and append to every store, or to none; yields what was no good."""
    for item, found in zip(items, extractor(items), strict=True):
        try:
            arrays = [writer.arrays(one) for writer, one in zip(writers, found, strict=True)]
        except FormatError as error:
            yield Fault(0, item.key, str(error))
            continue
        for writer, one in zip(writers, arrays, strict=True):
            writer.append(item.key, item.picture.size, one)


def _ahead(function: Callable[[T], R], values: Iterable[T], workers: int) -> Iterator[R]:
    """Results in order, computed by threads that keep a few of them ready."""
    if not workers:
        yield from map(function, values)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for value in values:
            waiting.append(pool.submit(function, value))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _shards(pictures: Sequence[PictureFile], size: int) -> list[Shard]:
    if size < 1 or len(pictures) > size * LARGEST:
        raise ConfigError(
            f"{len(pictures)} pictures in shards of {size}: expected at least 1 picture per shard and at "
            f"most {LARGEST} shards."
        )
    starts = range(0, len(pictures), size)
    return [Shard(number, tuple(pictures[start : start + size])) for number, start in enumerate(starts)]


class _Counter:
    """Pictures done: in finished shards, and in the one at work."""

    def __init__(self, done: int, total: int, progress: Progress | None) -> None:
        self.done, self.inside, self.total, self.progress = done, 0, total, progress
        self._tell()

    def add(self, count: int) -> None:
        self.inside += count
        self._tell()

    def finish_shard(self, count: int) -> None:
        self.done, self.inside = self.done + count, 0
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.done + self.inside, self.total)
