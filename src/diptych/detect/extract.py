"""Extracts a folder of images into feature stores, shard by shard: an interruption loses at most one.

features/
|-- vgattr.extract/      during a run: the plan, and a record of every finished shard
|-- vgattr36.partial/    during a run: the shards of a store
|-- vgattr36/            the store, when all shards are finished
`-- vgattr36.json        its report: settings, counts, skipped images with the reason
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
from diptych.errors import RESUME, ConfigError, DiptychError, FormatError
from diptych.features import Fault, PartWriter
from diptych.types import Progress

LARGEST = 100_000  # number of shards; file names have five digits
T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # images per reading thread that may wait for the network

OnBad = Literal["stop", "skip"]
ShardFunction = Callable[[Shard], ShardResult]
Engine = Callable[[Callable[[], ShardFunction], Sequence[Shard]], Iterable[ShardResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """Result of an extraction.

    Args:
        computed: number of images that this run processed; an earlier run processed the others.
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
    """Write the regions of all images to one store per rule; the network runs once per image.

    Equal images, settings, processor and number of threads give equal bytes, in the order of the paths.

    Args:
        images: a folder, or a .txt file of paths; see `list_pictures`.
        out: the folder of the stores.
        bad: `stop` at the first image that cannot be used, or `skip` it and list it in the report.
        shard: number of images per file of a store.
        workers: number of threads that read images ahead of the network.
        resume: continue from the finished shards of an earlier run, if there are any.
        overwrite: replace stores of these names at the end; without `resume`, also discard unfinished work.
        engine: runs the shards, for example on Ray; None runs them here, one after the other.
        progress: called with (number of finished images, number of images).

    Raises:
        ConfigError: something else exists at a path, or an earlier run had other settings.
        FormatError: an image cannot be used, or none can.
    """
    begin = time.perf_counter()
    pictures, state = list_pictures(images), ExtractionProgress(Path(out), settings)
    shards = _shards(pictures, shard)
    plan = state.plan(pictures, shard)
    if resume and (reports := state.finished(plan)) is not None:
        state.sweep()  # a run may have been killed between its last store and the removal of its records
        return ExtractReport(stores=tuple(reports), computed=0, seconds=time.perf_counter() - begin)
    with state.opened(plan, resume=resume, overwrite=overwrite):
        records = {part.number: state.recorded(part.number) for part in shards}
        finished = {number: done for number, done in records.items() if done is not None}
        missing = [part for part in shards if part.number not in finished]
        before = sum(done.pictures for done in finished.values())
        counter = _Counter(before, len(pictures), progress)
        build = partial(shard_function, state, device=device, bad=bad, workers=workers)
        if engine is not None:
            results = engine(build, missing)
        else:  # the network is not loaded if nothing is missing
            results = map(build(advance=counter.add), missing) if missing else ()
        for done in results:  # an engine may yield them in any order
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
    """Load the network, and return the function that turns a list of images into a finished shard.

    The function is the same in every process, and does nothing for a shard that is already recorded.
    """
    # Once per process: loading the network takes longer than many images.
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
        FormatError: an image cannot be used and `bad` is `stop`; nothing of the shard is kept.
        DiptychError: the disk is full, or the device is out of memory.
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
            for number, outcome in enumerate(_ahead(partial(_read, extractor), shard.pictures, workers), 1):
                if isinstance(outcome, Fault):
                    faults.append(outcome)
                else:
                    items.append(outcome)
                # batches end with their shard, so that padded regions do not depend on where a run resumed
                if len(items) == extractor.batch or number == len(shard.pictures):
                    faults += _write(extractor, items, writers)
                    items = []
                if faults and bad == "stop":
                    raise FormatError(
                        f"{faults[0]} bad=skip (or --bad skip) leaves such images out; {RESUME} continues."
                    )
                if advance is not None:
                    advance(1)
        done = ShardResult(shard.number, len(shard.pictures), tuple(faults))
        state.record(done)  # after the `with` block: only then all files of the shard are in place
    except OSError as error:  # of writing: errors of reading are faults of single images
        raise DiptychError(
            f"cannot write {error.filename or state.out}: {error.strerror}. Finished shards are kept; "
            f"{RESUME} continues."
        ) from error
    except torch.OutOfMemoryError as error:
        raise DiptychError(
            f"{extractor.device} is out of memory with {extractor.batch} images at a time."
        ) from error
    return done


def _read(extractor: Extractor, source: PictureFile) -> Item | Fault:
    try:
        return extractor.read(source)
    except FormatError as error:
        return Fault(0, source.key, str(error))


def _write(extractor: Extractor, items: Sequence[Item], writers: Sequence[PartWriter]) -> Iterator[Fault]:
    """Append the regions of each image to all stores or to none; yield the images that failed."""
    for item, regions in zip(items, extractor(items), strict=True):
        try:
            # checks the regions of all stores before any is written
            arrays = [writer.arrays(each) for writer, each in zip(writers, regions, strict=True)]
        except FormatError as error:
            yield Fault(0, item.key, str(error))
            continue
        for writer, values in zip(writers, arrays, strict=True):
            writer.append(item.key, item.picture.size, values)


def _ahead(function: Callable[[T], R], values: Iterable[T], workers: int) -> Iterator[R]:
    """Results in order, computed ahead by threads; a bounded number waits in memory."""
    if not workers:
        yield from map(function, values)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for value in values:
            waiting.append(pool.submit(function, value))
            if len(waiting) > AHEAD * workers:  # bounds the memory of decoded images
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _shards(pictures: Sequence[PictureFile], size: int) -> list[Shard]:
    if size < 1 or len(pictures) > size * LARGEST:
        raise ConfigError(
            f"{len(pictures)} images in shards of {size}: expected at least 1 image per shard and at "
            f"most {LARGEST} shards."
        )
    starts = range(0, len(pictures), size)
    return [Shard(number, tuple(pictures[start : start + size])) for number, start in enumerate(starts)]


class _Counter:
    """Number of processed images: in finished shards, and in the current one."""

    def __init__(self, done: int, total: int, progress: Progress | None) -> None:
        self.done, self.inside, self.total, self.progress = done, 0, total, progress
        self._tell()

    def add(self, count: int) -> None:
        self.inside += count
        self._tell()

    def finish_shard(self, count: int) -> None:
        self.done, self.inside = self.done + count, 0  # `add` has counted the same images
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.done + self.inside, self.total)
