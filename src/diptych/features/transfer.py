"""Region features of other formats into a store, and back."""

import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from diptych.boxes import DOUBTS
from diptych.errors import ConfigError, FormatError, nearest
from diptych.features import hdf5, json_files, lmdb, numpy_files, tsv
from diptych.features.archive import guarded, open_zip
from diptych.features.folder import files_below
from diptych.features.reading import (
    BoxPolicy,
    Entries,
    Fault,
    OnError,
    ReadLog,
    find_widths,
    read_entries,
)
from diptych.features.record import Widths
from diptych.features.store import INDEX, FeatureStore
from diptych.features.writer import StoreWriter
from diptych.files import MARK, require_apart, require_file
from diptych.types import FeatureMeta, Regions

WRITERS: dict[str, Callable[..., None]] = {
    "tsv": tsv.write_tsv,
    "caffe-tsv": partial(tsv.write_tsv, layout=tsv.CAFFE),
    "mmf-lmdb": lmdb.write_mmf,
    "mmf-npy": numpy_files.write_npy,
    "uniter-lmdb": lmdb.write_uniter,
    "uniter-npz": numpy_files.write_npz,
    "vilbert-lmdb": lmdb.write_vilbert,
    "vlbert-json": json_files.write_vlbert,
    "vlbert-zip": json_files.write_zip,
    "nav13n-json": json_files.write_nav13n,
    "volta-hdf5": hdf5.write_hdf5,
}
KINDS: tuple[tuple[str, bytes, bytes, Entries], ...] = (  # ending, first bytes, a word inside, reader
    (".npy", b"\x93NUMPY", b"", numpy_files.npy_entries),
    (".npz", b"PK", b"", numpy_files.npz_entries),
    (".json", b"{", b'"features"', json_files.json_entries),
)
SAMPLED = 8  # files that are looked at to tell what a folder holds
LMDB_MAGIC = b"\xde\xc0\xef\xbe"  # at byte 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did.

    Args:
        images: in the store, of which `resumed` were there from an earlier run.
        boxes: fewest, median and most regions of an image.
        doubts: what is wrong with boxes though it was taken, and how many images have it.
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
        """The report for a terminal; at most five faults of each kind are spelled out."""
        low, median, high = self.boxes
        resumed = f" ({self.resumed:,} of an earlier run)" if self.resumed else ""
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


def recognize(path: Path) -> Entries:
    """The reader for what a file or folder holds, by its content.

    Raises:
        FormatError: it holds none of the formats.
    """
    if path.is_dir():
        return _recognize_folder(path)
    with require_file(path, "region features").open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return hdf5.hdf5_entries
    if head[16:20] == LMDB_MAGIC:
        return lmdb.lmdb_entries
    if head.startswith((b"\x93NUMPY", b"{")):
        raise FormatError(f"{path}: the file of one image; give the folder that holds those of all.")
    if head.startswith((b"ustar", b"BZh", b"\xfd7zXZ", b"Rar!", b"7z\xbc\xaf")) or head[257:262] == b"ustar":
        raise FormatError(f"{path}: this is an archive; unpack it, and import what is inside.")
    return _recognize_zip(path) if head.startswith(b"PK") else tsv.tsv_entries


def _recognize_zip(path: Path) -> Entries:
    with guarded(path, "ZIP"), open_zip(path) as archive:
        names = [name.lower() for name in archive.namelist()]
    if any(name.endswith(".json") for name in names):
        return json_files.zip_entries
    if any(name.endswith(tsv.ENDINGS) for name in names):
        return tsv.tsv_entries
    if any(name.endswith((".npz", ".mdb", ".h5", ".hdf5")) or "/" in name for name in names):
        raise FormatError(f"{path}: this is an archive; unpack it, and import what is inside.")
    raise FormatError(f"{path}: the file of one image; give the folder that holds those of all.")


def read_features(
    path: Path | str,
    *,
    on_error: OnError = "raise",
    boxes: BoxPolicy = "check",
    feature_dim: int | None = None,
    done: Container[str] = (),
    log: ReadLog | None = None,
) -> Iterator[tuple[str, Regions]]:
    """Keys and regions of any format, image by image, in bounded memory.

    Args:
        on_error: `raise` at the first bad image; `skip` bad images; or `truncate` arrays that are longer than
            `boxes` (a known defect of one extractor, which drops an empty box but not its features) and raise
            at all else.
        boxes: `check` that boxes lie within the image, give or take a pixel, or `clip` them to it. Or what
            the source has in place of `x1 y1 x2 y2` in pixels: `xywh`, `yxyx`, parts of it (`scaled`).
        feature_dim: width of the features; None takes what most of the first images agree on.
        done: keys to pass over undecoded.
        log: is told of skipped and truncated images.

    Raises:
        FormatError: file, line or image, and what is wrong.
        ConfigError: a package is missing that the format needs.
    """
    path = Path(path)
    entries = recognize(path)
    widths = Widths(feature_dim) if feature_dim else None
    return read_entries(path, entries, on_error=on_error, boxes=boxes, widths=widths, done=done, log=log)


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
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Turn region features of any format into a feature store, in bounded memory.

    Args:
        box_rule: as `FeatureMeta`; None says what the file shows, for example `36` or `10:100`.
        resume: pass over the images that an interrupted import had finished.
        progress: called after every image with how far the source is read and how long it is.

    Raises:
        FormatError: as `read_features`; or no image is left.
        ConfigError: `out` exists.
    """
    begin = time.perf_counter()
    source = Path(source)
    entries = recognize(source)
    widths = Widths(feature_dim) if feature_dim else find_widths(source, entries)
    meta = FeatureMeta(
        feature_dim=widths.features,
        detector=detector,
        box_rule=box_rule or "unknown",
        classes=classes,
        attributes=attributes,
        dtype=dtype,
    )
    log = ReadLog()
    with StoreWriter(out, meta, resume=resume, overwrite=overwrite) as writer:
        images = read_entries(
            source, entries, on_error=on_error, boxes=boxes, widths=widths, done=writer.done, log=log
        )
        for key, regions in images:
            try:
                writer.add(key, regions)
            except FormatError as error:
                fault = Fault(log.line, key, str(error).removeprefix(f"image {key!r}: "), log.file)
                if on_error != "skip":
                    raise FormatError(f"{source}: {fault}") from error
                log.skipped.append(fault)
            if progress is not None:
                progress(log.done, log.total)
        resumed = len(writer.done)
        if not len(writer):
            raise FormatError(f"{source}: none of its images could be used; the first: {log.skipped[0]}")
    seconds = time.perf_counter() - begin
    kept = {"<f2": " (float16 there)", "<f8": " (float64 there)"}.get(widths.kind, "")
    return _report(FeatureStore(out), log, kept, bytes_in=_bytes(source), resumed=resumed, seconds=seconds)


def export_features(
    store: FeatureStore | Path | str,
    out: Path | str,
    *,
    format: str = "tsv",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a feature store in another format, in its order; returns the number of images.

    Raises:
        ConfigError: there is no such format, a package is missing that it needs, or `out` is to be kept.
        FormatError: the format cannot hold an id of the store.
    """
    if format not in WRITERS:
        known = ", ".join(WRITERS)
        raise ConfigError(f"format is {format!r}; expected one of {known}.{nearest(format, WRITERS)}")
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    require_apart(Path(out), [store.path])
    WRITERS[format](Path(out), _items(store, progress), store.meta, overwrite=overwrite)
    return len(store)


def _items(store: FeatureStore, progress: Callable[[int, int], None] | None) -> Iterable[tuple[str, Regions]]:
    for number, key in enumerate(store, 1):
        yield key, store[key]
        if progress is not None:
            progress(number, len(store))


def _recognize_folder(path: Path) -> Entries:
    if (path / INDEX).is_file():
        raise FormatError(f"{path}: this is a feature store already; use it as it is.")
    if (path / "data.mdb").is_file() or any(path.glob("*/data.mdb")):
        return lmdb.lmdb_entries
    for ending, head, word, entries in KINDS:
        for file in islice(files_below(path, ending), SAMPLED):
            if _holds(file, head, word):
                return entries
    if any(file.name.lower().endswith(tsv.IN_FOLDER) for file in files_below(path, "")):
        return tsv.tsv_entries
    raise FormatError(
        f"{path}: this is a folder without region features; expected a TSV, an LMDB, HDF5, a ZIP of JSON, or "
        "a folder with .npy, .npz, .json or .tsv files."
    )


def _holds(file: Path, head: bytes, word: bytes) -> bool:
    """Whether it starts with `head` and has `word` somewhere in its first megabytes."""
    with file.open("rb") as stream:
        start = stream.read(json_files.LONGEST if word else len(head))
    return start.startswith(head) and word in start


def _bytes(path: Path) -> int:
    """Of a file, or of all files of a folder."""
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
