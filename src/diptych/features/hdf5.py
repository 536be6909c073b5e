"""HDF5 as VOLTA makes it: one group per image with the arrays of the TSV."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from diptych.errors import ConfigError, FormatError
from diptych.features.reading import Entry
from diptych.features.record import MEANING, Record, record_of
from diptych.files import atomic_file, reserved
from diptych.types import FeatureMeta, Regions

VOLTA = "features obj_id obj_conf attr_id attr_conf boxes img_w img_h cls_prob"


def hdf5_entries(path: Path) -> Iterator[Entry]:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            keys = list(file)
            for number, key in enumerate(keys, 1):
                yield Entry(key, partial(_record, file, key), number, len(keys))
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError(f"{path}: not a whole HDF5 file ({error}).") from error


def write_hdf5(
    path: Path, items: Iterable[tuple[str, Regions]], meta: FeatureMeta, *, overwrite: bool = False
) -> None:
    h5py = _h5py()
    with reserved(path, overwrite=overwrite, kind="an HDF5 file"), atomic_file(path, "w+b") as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "w", track_order=True) as file:
                for key, regions in items:
                    _write(file, key, regions)
                    disk.check()
        finally:
            disk.check()


class _Disk:
    """A file that never fails HDF5, which crashes when a disk is full, but remembers that it did."""

    def __init__(self, file: IO[Any]) -> None:
        self.file = file
        self.error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            return len(data)

    def truncate(self, size: int) -> int:
        try:
            return self.file.truncate(size)
        except OSError as error:
            self.error = error
            return size

    def flush(self) -> None:
        try:
            self.file.flush()
        except OSError as error:
            self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _write(file: Any, key: str, regions: Regions) -> None:
    if not key or "/" in key or "\0" in key or key == ".":
        raise FormatError(f"image {key!r}: this id cannot name an HDF5 group; export to another format.")
    group = file.create_group(key)
    for name, value in record_of(key, regions, VOLTA).items():
        group[name] = value


def _record(file: Any, key: str) -> tuple[str, Record]:
    group = file.get(key)
    if not hasattr(group, "keys"):
        raise FormatError(
            f"{key} is {'a dataset' if group is not None else 'a broken link'}; expected one group per image "
            "with the datasets features, boxes, img_w and img_h."
        )
    try:
        return key, {name: _value(group[name]) for name in group if name in MEANING}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"its group cannot be read ({error}).") from error


def _value(dataset: Any) -> Any:
    if not hasattr(dataset, "dtype"):
        return None
    value = dataset[()]
    return value.item() if isinstance(value, np.generic) else value


def _h5py() -> Any:
    try:
        import h5py
    except Exception as error:
        raise ConfigError(
            f'HDF5 files need h5py ({error}). Install it: pip install "diptych[hdf5]"'
        ) from error
    return h5py
