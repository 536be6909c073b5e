"""Every feature format: reading with all checks beside the plain way without any; and import into a store."""

import base64
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

import h5py
import lmdb
import msgpack
import numpy as np
from bench._timing import in_turns, promise
from bench.features import images, parse
from tests.features.originals import ORIGINALS

from diptych.features import import_features, read_features, write_store
from diptych.types import FeatureMeta

IMAGES = 300
Row = tuple[str, str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the plain way, how many times faster ours is, and what is promised."""
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        meta = FeatureMeta(feature_dim=2048)
        store = write_store(folder / "store", images(IMAGES, np.float32), meta)
        for number, (name, plain) in enumerate(PLAIN.items()):
            path = folder / name
            ORIGINALS[name](path, [(key, store[key]) for key in store])
            yield measured(name, path, folder / f"imported-{number}", plain)


def measured(name: str, path: Path, out: Path, plain: Callable[[Path], object]) -> Row:
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()) / 1e6
    ours, other = in_turns(
        lambda: sum(1 for _ in read_features(path)), lambda: plain(path), seconds=1, clock=process_time
    )
    whole, _ = in_turns(
        lambda: import_features(path, out, overwrite=True), lambda: None, seconds=1, clock=process_time
    )
    return (
        f"read {name}, {IMAGES} images, {size:.0f} MB",
        f"{ours:.2f} CPU s, all checked; import {IMAGES / whole:,.0f} images/s, {size / whole:,.0f} MB/s",
        f"unchecked {other:.2f} CPU s",
        f"{other / ours:.2f}x",
        promise("import >= 200 images/s", whole <= IMAGES / 200),
    )


def decoded(record: dict[str, Any]) -> None:
    for name in ("boxes", "features"):
        np.frombuffer(base64.b64decode(record[name]), np.float32)


def tsv(path: Path) -> None:
    for _ in parse(path):
        pass


def pickles(path: Path) -> None:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key in pickle.loads(transaction.get(b"keys")):
            record = pickle.loads(transaction.get(key))
            if isinstance(record["features"], bytes):
                decoded(record)


def msgpacks(path: Path) -> None:
    [folder] = (file.parent for file in path.rglob("data.mdb"))
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key in json.loads(transaction.get(b"__keys__")):
            record = msgpack.unpackb(transaction.get(key.encode()))
            np.frombuffer(record["features"][b"data"], record["features"][b"type"])


def npys(path: Path) -> None:
    for file in path.glob("*.npy"):
        np.load(file, allow_pickle=True)


def npzs(path: Path) -> None:
    for file in path.glob("*.npz"):
        with np.load(file) as arrays:
            [arrays[name] for name in arrays.files]


def jsons(path: Path) -> None:
    for file in path.glob("*.json"):
        decoded(json.loads(file.read_bytes()))


def members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            decoded(json.loads(archive.read(name)))


def groups(path: Path) -> None:
    with h5py.File(path) as file:
        for group in file.values():
            [dataset[()] for dataset in group.values()]


PLAIN: dict[str, Callable[[Path], None]] = {
    "tsv": tsv,
    "mmf-lmdb": pickles,
    "vilbert-lmdb": pickles,
    "uniter-lmdb": msgpacks,
    "mmf-npy": npys,
    "uniter-npz": npzs,
    "vlbert-json": jsons,
    "vlbert-zip": members,
    "nav13n-json": jsons,
    "volta-hdf5": groups,
}
