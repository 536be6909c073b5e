"""Imports region features of other formats into a store, and exports stores."""

import time
import zipfile
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from diptych.archives import guarded
from diptych.boxes import DOUBTS
from diptych.errors import ConfigError, FormatError, nearest
from diptych.features import hdf5, json_files, lmdb, numpy_files, tsv
from diptych.features.fields import Widths
from diptych.features.format import Format, Sample
from diptych.features.reader import (
    BoxPolicy,
    Fault,
    OnError,
    ReadLog,
    find_widths,
    read_entries,
)
from diptych.features.store import INDEX, FeatureStore
from diptych.features.writer import StoreWriter
from diptych.files import MARK, require_apart, require_file
from diptych.types import FeatureMeta, Progress, Regions

# The first format that recognizes a source reads it. TSV is last because it accepts any text.
FORMATS: tuple[Format, ...] = (
    hdf5.FORMAT,
    lmdb.FORMAT,
    numpy_files.NPY,
    numpy_files.NPZ,
    json_files.FOLDER,
    json_files.ZIP,
    tsv.FORMAT,
)
WRITERS = {form.name: form.write for form in reversed(FORMATS) if form.write}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """Result of an import.

    Args:
        images: number of images in the store; an earlier run wrote `resumed` of them.
        boxes: minimum, median and maximum number of regions per image.
        doubts: suspicious properties of boxes that were accepted, with the number of images that have them.
        seconds: wall time.
    """

    store: Path
    images: int
    resumed: int
    regions: int
    boxes: tuple[int, float, int]
    features: str
    skipped: tuple[Fault, ...]
    truncated: tuple[Fault, ...]
    doubts: dict[str, int]
    bytes_in: int
    bytes_out: int
    seconds: float

    def lines(self) -> list[str]:
        """The report for a terminal, with at most five faults of each kind."""
        low, median, high = self.boxes
        resumed = f" ({self.resumed:,} from an earlier run)" if self.resumed else ""
        lines = [
            f"{self.images:,} images{resumed} with {self.regions:,} regions in {self.store}",
            f"regions per image: {low} to {high}, median {median:g}; features {self.features}",
            f"{self.bytes_in / 1e6:,.1f} MB read, {self.bytes_out / 1e6:,.1f} MB written, "
            f"{self.seconds:.1f} s",
        ]
        for what, faults in (("skipped", self.skipped), ("truncated", self.truncated)):
            if faults:
                lines.append(f"{len(faults):,} image(s) {what}:")
                lines += [f"  {fault}" for fault in faults[:5]] + ["  ..."] * (len(faults) > 5)
        new = self.images - self.resumed
        lines += [f"warning: {count:,} of {new:,} images have {what}" for what, count in self.doubts.items()]
        return lines


def recognize_format(path: Path) -> Format:
    """The format of a file or folder, judged by its content.

    Raises:
        FormatError: no format recognizes it.
    """
    if (path / INDEX).is_file():
        raise FormatError(f"{path}: this is already a feature store; use it as it is.")
    sample = _look(path)
    for form in FORMATS:
        if form.recognizes(sample):
            return form
    if sample.head is None:
        raise FormatError(
            f"{path}: this is a folder without region features; expected a TSV, an LMDB, HDF5, a ZIP of "
            "JSON, or a folder with .npy, .npz, .json or .tsv files."
        )
    # a ZIP of LMDBs, HDF5 or folders would have to be unpacked to disk to read it
    nested = any(name.endswith((".npz", ".mdb", ".h5", ".hdf5")) or "/" in name for name in sample.members)
    if sample.packed or nested:
        raise FormatError(f"{path}: this is an archive; unpack it and import its content.")
    raise FormatError(f"{path}: this file holds one image; give the folder with the files of all images.")


def _look(path: Path) -> Sample:
    if path.is_dir():
        return Sample(path, None)
    with require_file(path, "region features").open("rb") as file:
        head = file.read(512)  # a tar has its magic number at byte 257
    if not head.startswith(b"PK"):
        return Sample(path, head)
    with guarded(path, "a whole ZIP archive"), zipfile.ZipFile(path) as archive:
        return Sample(path, head, tuple(name.lower() for name in archive.namelist()))


def read_features(
    path: Path | str,
    *,
    on_error: OnError = "raise",
    boxes: BoxPolicy = "check",
    feature_dim: int | None = None,
    done: Container[str] = (),
    log: ReadLog | None = None,
) -> Iterator[tuple[str, Regions]]:
    """Read keys and regions from a source of any format, image by image, in bounded memory.

    Args:
        on_error: `raise` stops at the first bad image; `skip` leaves bad images out; `truncate` cuts arrays
            that are longer than `boxes` (a known defect of one extractor, which drops an empty box but not
            its features) and stops at every other error.
        boxes: `check` requires that boxes lie within the image, with a tolerance of one pixel; `clip` clips
            them to it. The others convert boxes that the source does not have as `x1 y1 x2 y2` in pixels:
            `xywh`, `yxyx`, or fractions of the image (`scaled`).
        feature_dim: width of the features; None means the width that most of the first images agree on.
        done: keys to skip without decoding them.
        log: records skipped and truncated images.

    Raises:
        FormatError: an image is bad; the message has its file, line or key, and the reason.
        ConfigError: the format needs a package that is not installed.
    """
    path = Path(path)
    form = recognize_format(path)
    widths = Widths(feature_dim) if feature_dim else None
    return read_entries(path, form, on_error=on_error, boxes=boxes, widths=widths, done=done, log=log)


def import_features(
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
    progress: Progress | None = None,
) -> ImportReport:
    """Convert region features of any format to a feature store, in bounded memory.

    Args:
        box_rule: as in `FeatureMeta`; None infers it from the counts, for example `36` or `10:100`.
        resume: skip the images that an interrupted import has finished.
        progress: called after every image with the position in the source and its total size.

    Raises:
        FormatError: as `read_features`; or no image could be used.
        ConfigError: `out` exists.
    """
    begin = time.perf_counter()
    source = Path(source)
    form = recognize_format(source)
    widths = Widths(feature_dim) if feature_dim else find_widths(source, form)
    meta = FeatureMeta(
        feature_dim=widths.features,
        detector=detector,
        box_rule=box_rule or "unknown",
        classes=classes,
        attributes=attributes,
        dtype=dtype,
    )
    log = ReadLog()
    with StoreWriter(out, meta, resume=resume, overwrite=overwrite) as writer:  # on errors: no store
        images = read_entries(
            source, form, on_error=on_error, boxes=boxes, widths=widths, done=writer.done, log=log
        )
        for key, regions in images:
            try:
                writer.add(key, regions)
            except FormatError as error:  # such as overflow of float16, or other fields than the first image
                fault = Fault(log.line, key, str(error).removeprefix(f"image {key!r}: "), log.file)
                if on_error != "skip":
                    raise FormatError(f"{source}: {fault}") from error
                log.skipped.append(fault)
            if progress is not None:
                progress(log.done, log.total)
        resumed = len(writer.done)
        if not len(writer):
            raise FormatError(f"{source}: no image could be used; the first: {log.skipped[0]}")
    seconds = time.perf_counter() - begin
    kept = {"<f2": " (float16 there)", "<f8": " (float64 there)"}.get(widths.kind, "")
    return _report(FeatureStore(out), log, kept, bytes_in=_bytes(source), resumed=resumed, seconds=seconds)


def export_features(
    store: FeatureStore | Path | str,
    out: Path | str,
    *,
    format: str = "tsv",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a feature store in another format, in the order of the store; return the number of images.

    Raises:
        ConfigError: the format is unknown, needs a package that is not installed, or `out` must be kept.
        FormatError: the format cannot hold a key of the store.
    """
    if format not in WRITERS:
        known = ", ".join(WRITERS)
        raise ConfigError(f"format is {format!r}; expected one of {known}.{nearest(format, WRITERS)}")
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    require_apart(Path(out), [store.path])  # overwrite must not remove the store itself
    WRITERS[format](Path(out), _items(store, progress), store.meta, overwrite=overwrite)
    return len(store)


def _items(store: FeatureStore, progress: Progress | None) -> Iterable[tuple[str, Regions]]:
    for number, key in enumerate(store, 1):
        yield key, store[key]
        if progress is not None:
            progress(number, len(store))


def _bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    files = (file for file in [path, *path.rglob("*")] if file.is_file() and file.name != MARK)
    return sum(file.stat().st_size for file in files)


def _report(
    store: FeatureStore, log: ReadLog, kept: str, *, bytes_in: int, resumed: int, seconds: float
) -> ImportReport:
    counts = store.counts()
    return ImportReport(
        store=store.path,
        images=len(store),
        resumed=resumed,
        regions=int(counts.sum()),
        boxes=(int(counts.min()), float(np.median(counts)), int(counts.max())),
        features=f"{store.meta.feature_dim} wide, {store.meta.dtype}{kept}",
        skipped=tuple(log.skipped),
        truncated=tuple(log.truncated),
        doubts={DOUBTS[name]: count for name, count in log.doubts.items()},
        bytes_in=bytes_in,
        bytes_out=sum(file.stat().st_size for file in store.path.iterdir()),
        seconds=seconds,
    )
