"""Region features of other formats into a store, and back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from diptych.errors import FormatError
from diptych.features.store import FeatureStore
from diptych.features.tsv import BoxPolicy, Fault, OnError, TsvLog, feature_width, read_tsv, write_tsv
from diptych.features.writer import StoreWriter
from diptych.types import FeatureMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did.

    Args:
        images: in the store, of which `resumed` were there from an earlier run.
        boxes: fewest, median and most regions of an image.
        seconds: wall time.
    """

    store: Path
    images: int
    resumed: int
    regions: int
    boxes: tuple[int, float, int]
    skipped: tuple[Fault, ...]
    truncated: tuple[Fault, ...]
    bytes_in: int
    bytes_out: int
    seconds: float

    def lines(self) -> list[str]:
        """The report for a terminal; at most five faults of each kind are spelled out."""
        low, median, high = self.boxes
        resumed = f" ({self.resumed:,} of an earlier run)" if self.resumed else ""
        lines = [
            f"{self.images:,} images{resumed} with {self.regions:,} regions in {self.store}",
            f"regions per image: {low} to {high}, median {median:g}",
            f"{self.bytes_in / 1e6:,.1f} MB read, {self.bytes_out / 1e6:,.1f} MB written, "
            f"{self.seconds:.1f} s",
        ]
        for what, faults in (("skipped", self.skipped), ("truncated", self.truncated)):
            if faults:
                lines.append(f"{len(faults):,} row(s) {what}:")
                lines += [f"  {fault}" for fault in faults[:5]] + ["  ..."] * (len(faults) > 5)
        return lines


def import_tsv(
    source: Path | str,
    out: Path | str,
    *,
    detector: str = "unknown",
    box_rule: str | None = None,
    classes: tuple[str, ...] = (),
    attributes: tuple[str, ...] = (),
    dtype: Literal["float16", "float32"] = "float32",
    on_error: OnError = "raise",
    boxes: BoxPolicy = "check",
    feature_dim: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Turn a TSV into a feature store, in bounded memory.

    Args:
        box_rule: as `FeatureMeta`; None says what the file shows, for example `36` or `10:100`.
        resume: pass over the images that an interrupted import had finished.
        progress: called after every image with the bytes read so far and the size of the file.

    Raises:
        FormatError: as `read_tsv`; or no row is left.
        ConfigError: `out` exists.
    """
    begin = time.perf_counter()
    width = feature_dim or feature_width(source)
    meta = FeatureMeta(
        feature_dim=width,
        detector=detector,
        box_rule=box_rule or "unknown",
        classes=classes,
        attributes=attributes,
        dtype=dtype,
    )
    log = TsvLog()
    total = Path(source).stat().st_size
    with StoreWriter(out, meta, resume=resume, overwrite=overwrite) as writer:
        rows = read_tsv(source, on_error=on_error, boxes=boxes, feature_dim=width, done=writer.done, log=log)
        for key, regions in rows:
            try:
                writer.add(key, regions)
            except FormatError as error:
                fault = Fault(log.line, key, str(error).removeprefix(f"image {key!r}: "))
                if on_error != "skip":
                    raise FormatError(f"{source}: {fault}") from error
                log.skipped.append(fault)
            if progress is not None:
                progress(log.bytes_read, total)
        resumed = len(writer.done)
        if not len(writer):
            raise FormatError(f"{source}: none of its rows could be used; the first: {log.skipped[0]}")
    return _report(FeatureStore(out), log, resumed=resumed, seconds=time.perf_counter() - begin)


def export_tsv(store: FeatureStore | Path | str, out: Path | str, *, overwrite: bool = False) -> int:
    """Write a feature store as TSV, in the order of the store; returns the number of images."""
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    return write_tsv(out, ((key, store[key]) for key in store), overwrite=overwrite)


def _report(store: FeatureStore, log: TsvLog, *, resumed: int, seconds: float) -> ImportReport:
    counts = store.counts()
    return ImportReport(
        store=store.path,
        images=len(store),
        resumed=resumed,
        regions=int(counts.sum()),
        boxes=(int(counts.min()), float(np.median(counts)), int(counts.max())),
        skipped=tuple(log.skipped),
        truncated=tuple(log.truncated),
        bytes_in=log.bytes_read,
        bytes_out=sum(file.stat().st_size for file in store.path.iterdir()),
        seconds=seconds,
    )
