"""LMDB environments of pickled dicts (mmf, ViLBERT, VOLTA), msgpack or NPZ (UNITER)."""

import errno
import io
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy import ndarray

from diptych.documents import check_shape, parse_json
from diptych.errors import DiptychError, FormatError, missing_library
from diptych.features.fields import Record, record_of
from diptych.features.format import LARGEST, Entry, Format, Items, Sample
from diptych.features.numpy_files import read_npz
from diptych.features.pages import Pages
from diptych.files import atomic_folder, require_file
from diptych.pickles import read_pickle
from diptych.types import FeatureMeta

MMF = (
    "feature_path features image_height image_width num_boxes objects cls_prob bbox "
    "objects_conf attrs_id attrs_conf"
)
MAGIC = b"\xde\xc0\xef\xbe"  # at byte 16 of the file
MAP = 1 << 42  # bytes of address space to reserve; the file only grows to the size of its content
COMMIT = 64 << 20  # bytes per transaction
LONGEST_KEY = 511  # bytes; compiled into LMDB


def lmdb_entries(path: Path) -> Iterator[Entry]:
    """One entry per listed key, then one per record that is not in the list; those fail to load."""
    database = _file(path)
    with require_file(database, "an LMDB").open("rb") as file:
        pages = Pages(database, file.fileno())
        if b"keys" in pages.places:
            keys, read = _pickled_keys(pages, database), _read_pickled
        elif b"__keys__" in pages.places:
            keys, read = _json_keys(pages, database), _read_uniter
        else:
            damage = f" Damaged LMDB: {pages.damage[0]}." if pages.damage else ""
            raise FormatError(
                f"{database}: an LMDB without a list of its keys; expected `keys` (mmf, ViLBERT) or "
                f"`__keys__` (UNITER). Was its writing interrupted?{damage}"
            )
        strays = _strays(pages, keys)
        total = len(keys) + len(strays)
        for number, key in enumerate(keys, 1):
            short = key.removesuffix(".npz") if read is _read_uniter else key
            yield Entry(short, partial(_record, pages, key, short, read), number, total)
        for number, (stray, reason) in enumerate(strays, len(keys) + 1):
            yield Entry(stray, partial(_refuse, reason), number, total)


def _strays(pages: Pages, keys: list[str]) -> list[tuple[str | None, str]]:
    """Records outside of the list of keys, with a reason; reading the list alone would silently lose them."""
    listed = {key.encode(errors="replace") for key in keys} | {b"keys", b"__keys__"}
    if pages.damage and listed - {b"keys", b"__keys__"} <= pages.places.keys():
        return [(None, f"damaged LMDB: {damage}.") for damage in pages.damage]
    rest = [key for key in pages.places if key not in listed]
    reason = f"it is one of {len(rest):,} records that are not in the list of keys; was a copy interrupted?"
    return [(key.decode(errors="backslashreplace"), reason) for key in rest]


def _refuse(reason: str) -> NoReturn:
    raise FormatError(reason)


def write_mmf(path: Path, items: Items, meta: FeatureMeta, *, overwrite: bool = False) -> None:
    """Write pickled dicts, as in mmf's `detectron.lmdb`.

    Raises:
        FormatError: a key is empty, longer than 511 bytes, or `keys`.
    """
    keys: list[bytes] = []

    def values() -> Iterator[tuple[bytes, bytes]]:
        for key, regions in items:
            keys.append(key.encode())
            # Written for mmf, which unpickles them; protocol 4 is read by every Python that mmf runs on.
            yield keys[-1], pickle.dumps(record_of(key, regions, MMF), protocol=4)
        yield b"keys", pickle.dumps(keys, protocol=4)

    _lmdb()  # fails before the folder is made
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        _write(folder, values())


def _write(folder: Path, values: Iterator[tuple[bytes, bytes]]) -> None:
    lmdb = _lmdb()
    try:
        with lmdb.open(str(folder), map_size=MAP) as database:
            # Several transactions: LMDB keeps what is not committed in memory.
            more = True
            while more:
                with database.begin(write=True) as transaction:
                    more = _fill(transaction, values)
    except lmdb.BadValsizeError as error:
        raise FormatError(f"an id is empty or has more than {LONGEST_KEY} bytes: {error}.") from error
    except lmdb.Error as error:
        code = getattr(error, "code", 0)
        if code in (errno.ENOSPC, errno.EFBIG, errno.EIO):  # LMDB reports a short write as EIO
            raise OSError(errno.ENOSPC, str(error)) from error
        raise DiptychError(f"cannot write the LMDB: {error}.") from error
    (folder / "lock.mdb").unlink(missing_ok=True)  # differs from run to run; readers make their own


def _fill(transaction: Any, values: Iterator[tuple[bytes, bytes]]) -> bool:
    """Write one transaction's worth, as LMDB holds uncommitted data in memory; return False at the end."""
    size = 0
    for key, value in values:
        if not transaction.put(key, value, overwrite=False):
            raise FormatError(
                f"image {key.decode()!r}: the list of keys has this name; export to another format."
            )
        size += len(value)
        if size > COMMIT:
            return True
    return False


def _file(path: Path) -> Path:
    """The data file of an environment: the path itself, in it, or in its only subfolder that has one."""
    # UNITER has a folder per environment beside its counts
    data = path / "data.mdb" if path.is_dir() else path
    below = sorted(path.glob("*/data.mdb"))
    return below[0] if not data.is_file() and len(below) == 1 else data


def _pickled_keys(pages: Pages, path: Path) -> list[str]:
    try:
        keys = read_pickle(pages.get(b"keys") or b"")
        if isinstance(keys, (list, ndarray)):  # of bytes or of text, depending on the script
            return [key.decode() if isinstance(key, bytes) else str(key) for key in keys]
    except (FormatError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: its list of keys cannot be read: {error}") from error
    raise FormatError(f"{path}: `keys` holds a {type(keys).__name__}; expected a list of ids.")


def _json_keys(pages: Pages, path: Path) -> list[str]:
    where = f"{path}: `__keys__`"
    return check_shape(parse_json(pages.get(b"__keys__") or b"", where=where), list[str], where=where)


def _record(pages: Pages, key: str, short: str, read: Any) -> tuple[str, Record]:
    value = pages.get(key.encode(errors="replace"))
    if value is None:
        lost = f" Damaged LMDB: {pages.damage[0]}." if pages.damage else ""
        raise FormatError(f"it is in the list of keys, but there is nothing under its key.{lost}")
    if len(value) > LARGEST:
        raise FormatError(f"it has {len(value):,} bytes; expected at most {LARGEST:,} for one image.")
    record = read(value)
    if not isinstance(record, dict):
        raise FormatError(f"it is a {type(record).__name__}; expected a dict with boxes and features.")
    return short, record


def _read_pickled(value: Any) -> Any:
    return read_pickle(value)


def _read_uniter(value: Any) -> Any:
    if bytes(value[:2]) == b"PK":
        return read_npz(io.BytesIO(value), "its value")
    msgpack = _msgpack()
    try:
        # nested empty containers need sixty times their bytes in memory; features need neither limit
        most = {"max_array_len": 1 << 16, "max_map_len": 1 << 10}
        return msgpack.unpackb(value, object_hook=_unpacked, strict_map_key=False, **most)
    except FormatError:
        raise
    except Exception as error:  # damaged values raise errors of many classes
        raise FormatError(f"it is no whole msgpack ({type(error).__name__}: {error}).") from error


def _unpacked(value: dict[Any, Any]) -> Any:
    """Decode an array of msgpack-numpy; arrays of pickled objects are refused."""
    if b"nd" not in value:
        return value
    # the type is checked before NumPy sees it: "O" would make objects of raw bytes
    if value.get(b"kind") not in (b"", None) or str(value[b"type"])[1:2] not in "fiub":
        raise FormatError(f"it holds an array of {value[b'type']!r}; expected numbers.")
    numbers = np.frombuffer(value[b"data"], value[b"type"])
    return numbers.reshape(value[b"shape"]) if value[b"nd"] else numbers[0].item()


def _lmdb() -> Any:
    try:
        import lmdb
    except Exception as error:
        raise missing_library("LMDB files need lmdb", "lmdb", error) from error
    return lmdb


def _msgpack() -> Any:
    try:
        import msgpack
    except Exception as error:
        raise missing_library("LMDB files of UNITER need msgpack", "lmdb", error) from error
    return msgpack


def _recognizes(sample: Sample) -> bool:
    if sample.head is not None:
        return sample.head[16:20] == MAGIC
    return (sample.path / "data.mdb").is_file() or any(sample.path.glob("*/data.mdb"))


FORMAT = Format(
    recognizes=_recognizes,
    entries=lmdb_entries,
    name="mmf-lmdb",
    write=write_mmf,
)
