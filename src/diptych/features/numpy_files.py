"""Folders of NumPy files: `ID.npy` beside `ID_info.npy` (mmf), and `ID.npz` (UNITER)."""

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diptych.archives import guarded, read_array_head, read_numbers, require_plain
from diptych.errors import FormatError
from diptych.features.fields import MEANING, Record, record_of
from diptych.features.format import LARGEST, Entry, Format, Items, files_below
from diptych.files import ByteStream, atomic_folder, require_file
from diptych.pickles import read_pickle
from diptych.types import FeatureMeta

INFO = "_info.npy"
HEAD = 128  # bytes of a NumPy header
UNITER = "norm_bb features conf soft_labels boxes img_w img_h objects_id attrs_id attrs_conf"


def npy_entries(path: Path) -> Iterator[Entry]:
    """One entry per `ID.npy`, with its `ID_info.npy` or with a dict of everything inside (ViLBERT)."""
    files = [file for file in files_below(path, ".npy") if not _is_info(file)]
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_npy, key, file), number, len(files))


def npz_entries(path: Path) -> Iterator[Entry]:
    """One entry per `ID.npz`."""
    files = files_below(path, ".npz")
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_npz, key, file), number, len(files))


def write_npz(path: Path, items: Items, meta: FeatureMeta, *, overwrite: bool = False) -> None:
    """Write a folder of `ID.npz` files for UNITER's scripts.

    Arrays that UNITER does not have (boxes in pixels, image sizes, objects) follow after those it reads.

    Raises:
        FormatError: a key cannot be the name of a file below the folder.
    """
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        for key, regions in items:
            record = record_of(key, regions, UNITER)
            # UNITER's scripts index every array by box, which fails for scalars
            arrays = {name: np.atleast_1d(np.asarray(value)) for name, value in record.items()}
            file = folder / f"{_file_name(key)}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]


def _file_name(key: str) -> str:
    """The key, if it is a relative path that stays below the folder."""
    parts = PurePosixPath(key).parts
    if not parts or key != "/".join(parts) or ".." in parts or "\0" in key or "\\" in key:
        raise FormatError(f"image {key!r}: this id cannot be the name of a file; export to another format.")
    return key


def _is_info(file: Path) -> bool:
    """Whether a file is the `ID_info.npy` of an image, and not the `ID.npy` of an id that ends in `_info`."""
    if not file.name.endswith(INFO) or not file.with_name(file.name.removesuffix(INFO) + ".npy").exists():
        return False
    if not file.with_name(file.stem + INFO).is_file() or not file.is_file():
        return True
    # `a.npy`, `a_info.npy` and `a_info_info.npy` exist, so the name alone does not tell whether `a_info.npy`
    # describes `a` or holds the features of `a_info`; only descriptions are pickled objects
    with file.open("rb") as stream:
        return b"'descr': '|O'" in stream.read(HEAD)


def read_npz(file: Any, name: object) -> Record:
    """The arrays of an NPZ whose names are in `MEANING`.

    Raises:
        FormatError: it is damaged, uses an unusual compression, or claims more bytes than `LARGEST`.
    """
    with guarded(name, "a whole NPZ of plain arrays", named=True), zipfile.ZipFile(file) as archive:
        record, left = {}, LARGEST
        for member in archive.infolist():
            part = member.filename.removesuffix(".npy")
            if part in MEANING:
                require_plain(member, left)
                # One budget for all arrays of an image.
                left -= member.file_size
                with archive.open(member) as stream:
                    record[part] = _array(stream, member.file_size)
        return record


def _npz(key: str, file: Path) -> tuple[str, Record]:
    return key, read_npz(require_file(file, "an NPZ"), file.name)


def _npy(key: str, file: Path) -> tuple[str, Record]:
    values = _load(file)
    if isinstance(values, dict):
        return key, values
    info = file.with_name(file.stem + INFO)
    if not info.is_file():
        raise FormatError(f"{info.name} is missing beside {file.name}; it has the boxes and the image size.")
    record = _load(info)
    if not isinstance(record, dict):
        raise FormatError(f"{info.name} holds no dict; expected bbox, image_width, image_height.")
    return key, {**record, "features": values}


def _load(file: Path) -> Any:
    """An array, or the object in an array of one pickled object, which is unpickled without running code."""
    size = require_file(file, "an array of NumPy").stat().st_size
    with guarded(file.name, "a whole NumPy file", named=True), file.open("rb") as stream:
        return _array(stream, size, pickled=True)


def _array(stream: ByteStream, size: int, *, pickled: bool = False) -> Any:
    """Read one array from a stream of `size` bytes; check its header before allocating anything."""
    if size > LARGEST:
        raise FormatError(f"it has {size:,} bytes; expected at most {LARGEST:,} for one image.")
    shape, fortran, kind, head = read_array_head(stream, size)
    if kind.hasobject and pickled:
        return read_pickle(stream)
    return read_numbers(stream, size - head, shape, fortran, kind)


NPY = Format(
    recognizes=lambda sample: sample.holds(".npy", b"\x93NUMPY"),
    entries=npy_entries,
)
NPZ = Format(
    recognizes=lambda sample: sample.holds(".npz", b"PK"),
    entries=npz_entries,
    name="uniter-npz",
    write=write_npz,
)
