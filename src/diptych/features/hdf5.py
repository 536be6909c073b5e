"""HDF5 files of VOLTA: one group per image with the arrays of the TSV."""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from diptych.archives import guarded
from diptych.errors import FormatError, missing_library
from diptych.features.fields import MEANING, Record, record_of
from diptych.features.format import LARGEST, Entry, Format, Items
from diptych.files import atomic_file, reserved
from diptych.types import FeatureMeta, Regions

# constants of the HDF5 library: H5L_TYPE_HARD and the H5D layouts that keep data in the file itself
HARD_LINK = 0
COMPACT, CONTIGUOUS, CHUNKED = 0, 1, 2
VOLTA = "features obj_id obj_conf attr_id attr_conf boxes img_w img_h cls_prob"


def hdf5_entries(path: Path) -> Iterator[Entry]:
    """One entry per group of the file."""
    h5py = _h5py()
    with guarded(path, "a whole HDF5 file"), h5py.File(path, "r") as file:
        keys = list(file)
        for number, key in enumerate(keys, 1):
            yield Entry(key, partial(_record, file, key), number, len(keys))


def write_hdf5(path: Path, items: Items, meta: FeatureMeta, *, overwrite: bool = False) -> None:
    """Write the layout of VOLTA's scripts.

    Raises:
        FormatError: a key cannot be the name of a group.
    """
    h5py = _h5py()
    # HDF5 gets a Python file object: if it opened the path itself, a full disk would crash the process
    with (
        reserved(path, overwrite=overwrite, kind="an HDF5 file"),
        atomic_file(path, "w+b") as raw,
        h5py.File(raw, "w", track_order=True) as file,
    ):
        for key, regions in items:
            _write(file, key, regions)


def _write(file: Any, key: str, regions: Regions) -> None:
    if not key or "/" in key or "\0" in key or key == ".":
        raise FormatError(
            f"image {key!r}: this id cannot be the name of an HDF5 group; export to another format."
        )
    group = file.create_group(key)
    for name, value in record_of(key, regions, VOLTA).items():
        group[name] = value


def _record(file: Any, key: str) -> tuple[str, Record]:
    with guarded("its group", "readable"):
        group = _inside(file, key)
        if not hasattr(group, "keys"):
            raise FormatError(
                f"{key} is a dataset; expected one group per image with the datasets features, boxes, img_w "
                "and img_h."
            )
        record, left = {}, LARGEST
        for name in group:
            if name in MEANING:
                record[name] = _value(_inside(group, name), left)
                # One budget for the whole image: a hundred arrays of the allowed size would fill the memory.
                left -= getattr(record[name], "nbytes", 0)
        return key, record


def _inside(group: Any, name: str) -> Any:
    """A member stored in the group itself; links are refused: they may lead to other files or in circles."""
    if group.id.links.get_info(name.encode(errors="surrogateescape")).type != HARD_LINK:
        raise FormatError(f"{name} is a link; expected the data itself.")
    return group[name]


def _value(dataset: Any, most: int) -> Any:
    """The content of a dataset, read only after its layout, size and type were checked."""
    if not hasattr(dataset, "dtype"):
        return None
    kind, where = dataset.dtype, dataset.name.rpartition("/")[2]
    layout = dataset.id.get_create_plist()  # fetched once: every property of h5py would fetch it again
    if layout.get_layout() not in (COMPACT, CONTIGUOUS, CHUNKED) or layout.get_external_count():
        raise FormatError(f"{where} lies in other files; expected the data itself.")
    # HDF5 unpacks whole chunks, so a small dataset with a huge chunk needs as much memory as the chunk
    chunk = layout.get_chunk() if layout.get_layout() == CHUNKED else ()
    size = max(dataset.size or 0, prod(chunk) if chunk else 0) * kind.itemsize
    if size > most:
        raise FormatError(f"{where} claims {size:,} bytes; expected at most {LARGEST:,} for one image.")
    # strings are allowed as scalars only: some writers store the id as text
    if kind.kind not in "biuf" and not (kind.kind in "OS" and dataset.shape == ()):
        raise FormatError(f"{where} holds {kind} values; expected numbers.")
    value = dataset[()]
    return value.item() if isinstance(value, np.generic) else value


def _h5py() -> Any:
    try:
        import h5py
    except Exception as error:
        raise missing_library("HDF5 files need h5py", "hdf5", error) from error
    return h5py


FORMAT = Format(
    recognizes=lambda sample: sample.starts(b"\x89HDF\r\n\x1a\n"),
    entries=hdf5_entries,
    name="volta-hdf5",
    write=write_hdf5,
)
