"""Folders of NumPy files: `ID.npy` beside `ID_info.npy` (mmf), and `ID.npz` (UNITER)."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from diptych.errors import FormatError
from diptych.features.folder import file_for, files_below
from diptych.features.pickles import read_pickle
from diptych.features.reading import Entry
from diptych.features.record import MEANING, Record, record_of
from diptych.files import atomic_folder
from diptych.types import FeatureMeta, Regions

INFO = "_info.npy"
MMF = "bbox num_boxes objects cls_prob image_width image_height objects_conf attrs_id attrs_conf"
UNITER = "norm_bb features conf soft_labels boxes img_w img_h objects_id attrs_id attrs_conf"


def npy_entries(path: Path) -> Iterator[Entry]:
    """Every `ID.npy` with its `ID_info.npy`, or with a dict of everything in itself (ViLBERT)."""
    files = [file for file in files_below(path, ".npy") if not file.name.endswith(INFO)]
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_npy, key, file), number, len(files))


def npz_entries(path: Path) -> Iterator[Entry]:
    files = files_below(path, ".npz")
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_npz, key, file), number, len(files))


def write_npy(
    path: Path, items: Iterable[tuple[str, Regions]], meta: FeatureMeta, *, overwrite: bool = False
) -> None:
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        for key, regions in items:
            if f"{key}.npy".endswith(INFO):
                raise FormatError(
                    f"image {key!r}: an id must not end in _info here; export to another format."
                )
            info = np.array(record_of(key, regions, MMF), object)
            np.save(file_for(folder, key, ".npy"), regions.features)
            with file_for(folder, key, INFO).open("wb") as file:
                np.lib.format.write_array(file, info, allow_pickle=True)


def write_npz(
    path: Path, items: Iterable[tuple[str, Regions]], meta: FeatureMeta, *, overwrite: bool = False
) -> None:
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        for key, regions in items:
            with file_for(folder, key, ".npz").open("wb") as file:
                np.savez(file, **uniter_record(key, regions))  # type: ignore[arg-type]


def uniter_record(key: str, regions: Regions) -> dict[str, np.ndarray]:
    """As UNITER keeps an image, and behind it what UNITER leaves out: pixels, sizes, objects."""
    record = record_of(key, regions, UNITER)
    # UNITER's scripts slice every array by boxes, so none may be without a dimension
    return {name: np.atleast_1d(np.asarray(value)) for name, value in record.items()}


def read_npz(file: Any, name: object) -> Record:
    """The arrays of an NPZ."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {part: arrays[part] for part in arrays.files if part in MEANING}
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise FormatError(f"{name} is not a whole NPZ of plain arrays ({error}).") from error


def _npz(key: str, file: Path) -> tuple[str, Record]:
    with file.open("rb") as stream:  # NumPy leaves a damaged one open
        return key, read_npz(stream, file.name)


def _npy(key: str, file: Path) -> tuple[str, Record]:
    values = _load(file)
    if isinstance(values, dict):
        return key, values
    info = file.with_name(file.stem + INFO)
    if not info.is_file():
        raise FormatError(f"{info.name} is missing beside {file.name}; boxes and size are in it.")
    record = _load(info)
    if not isinstance(record, dict):
        raise FormatError(f"{info.name} holds no dict; expected bbox, image_width, image_height.")
    return key, {**record, "features": values}


def _load(file: Path) -> Any:
    """An array; or what an array around one object holds, unpickled without running code."""
    try:
        with file.open("rb") as stream:
            if _header(stream)[2].hasobject:
                return read_pickle(stream)
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError, KeyError) as error:
        raise FormatError(f"{file.name} is not a whole NumPy file ({error}).") from error
    except FormatError as error:
        raise FormatError(f"{file.name}: {error}") from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)
