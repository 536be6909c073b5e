"""Odd arrays and archives."""

import io
import json
import zipfile
from random import Random
from typing import Any

import numpy as np


def odd_array(rng: Random) -> tuple[str, Any]:
    """A value where an array of boxes, features or scores is expected, with its name."""
    odd: dict[str, Any] = {
        **{
            "text": "x",
            "none": None,
            "list": [1, 2],
            "ragged": [[1], [2, 3]],
            "number": 3.5,
            "huge number": 2**70,
        },
        **{"bytes": b"\xff\xfe", "dict": {"a": 1}, "set": {1}, "nan": np.full((5, 4), np.nan, "f4")},
        "objects": np.array([None, 1], object),
        "dates": np.array(["2020-01-01"], "datetime64[D]"),
        "complex": np.ones((3, 4), complex),
        "truths": np.ones(4, bool),
        "texts": np.array(["a", "b"]),
        "records": np.zeros(3, [("a", "f4")]),
        "no rows": np.zeros((0, 4), "f4"),
        "no columns": np.zeros((4, 0), "f4"),
        "three axes": np.ones((2, 2, 2), "f4"),
        "no axis": np.array(5.0),
        "big endian": np.ones((3, 4), ">f4"),
        "by columns": np.asfortranarray(np.ones((5, 4), "f4")),
        "half": np.ones((5, 4), "f2"),
        "long double": np.ones((5, 4), np.longdouble),
        "unsigned": np.array([2**64 - 1], "u8"),
        "negative": np.array([-1, -5]),
        "too large": np.full((5, 4), 1e300),
    }
    name = rng.choice(sorted(odd))
    return name, odd[name]


def odd_record(record: dict[str, Any], rng: Random) -> tuple[str, dict[str, Any]]:
    """A record in which one value is odd, is gone, or has another's place."""
    key = rng.choice(sorted(record))
    if rng.random() < 0.15:
        return f"without {key}", {name: one for name, one in record.items() if name != key}
    if rng.random() < 0.15:
        other = rng.choice(sorted(record))
        return f"{other} as {key}", {**record, key: record[other]}
    name, value = odd_array(rng)
    return f"{name} as {key}", {**record, key: value}


def npy(value: Any) -> bytes:
    """One array as `.npy`, pickled where NumPy does that."""
    out = io.BytesIO()
    try:
        np.save(out, value, allow_pickle=True)
    except ValueError:  # ragged lists
        np.save(out, np.array(repr(value)))
    return out.getvalue()


def npz(record: dict[str, Any]) -> bytes:
    """Arrays as `.npz`."""
    return archive({f"{name}.npy": npy(value) for name, value in record.items()})


def archive(members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Files as a ZIP."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    """The files of a ZIP."""
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        return {name: made.read(name) for name in made.namelist()}


def odd_archive(data: bytes, pickled: bytes, rng: Random) -> tuple[str, bytes]:
    """A ZIP (an `.npz`, too) that was made to harm, with the name of what it does."""
    held = members(data)
    first = rng.choice(sorted(held))
    how = rng.choice(
        ("bomb", "header", "shape", "pickle", "climbs", "twice", "nested", "encrypted", "version", "none")
    )
    if how == "bomb":  # 3 MB that unpack to 3 GB
        block = archive({"x": bytes(64 << 20)}, compression=zipfile.ZIP_DEFLATED)
        return how, block.replace(b"x", first[:1].encode()) if rng.random() < 0.2 else _bomb(held, first)
    if how in ("header", "shape", "version"):
        return how, archive({**held, first: _header(how, rng)})
    if how == "pickle":
        return how, archive({**held, first: pickled})
    if how == "climbs":
        return how, archive({**held, "../../climbed.npy": held[first]})
    if how == "twice":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as made:
            for name in (*held, *(f"./{one}" for one in held)):
                made.writestr(name, held[name.removeprefix("./")])
        return how, out.getvalue()
    if how == "nested":
        return how, archive({"inner.zip": data})
    if how == "none":
        return how, archive({})
    changed = bytearray(data)  # the bit that says encrypted, or the version needed, in every header
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + place] |= 1
            at = changed.find(mark, at + 1)
    return how, bytes(changed)


def _bomb(held: dict[str, bytes], name: str) -> bytes:
    head = (
        npy(np.zeros(1, "f8")).replace(b"(1,)", b"(%d,)" % (48 << 20))
        if name.endswith(".npy")
        else b'{"features": "'
    )
    return archive({**held, name: head + bytes(384 << 20)}, compression=zipfile.ZIP_DEFLATED)


def _header(how: str, rng: Random) -> bytes:
    """The start of an `.npy` whose header lies."""
    shape = rng.choice(
        ((2**40,), (2**31, 2**31), (-1, 4), (0, 2**62), (10**30,), "x", (2.5,), tuple([1] * 100))
    )
    kind = (
        rng.choice(("<f4", "|O", "<U9999999999", "|V0", ">f16", "zz", "<M8[0s]", [("a", "<f4")]))
        if how == "header"
        else "<f4"
    )
    text = str({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    version = bytes([rng.choice((0, 4, 9, 255)), 0]) if how == "version" else b"\x01\x00"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + bytes(64)


def odd_header(data: bytes, rng: Random, damage: Any) -> bytes:
    """A safetensors file whose JSON header is damaged, its length adapted or not."""
    length = int.from_bytes(data[:8], "little")
    tree = json.loads(data[8 : 8 + length])
    some = dict(rng.sample(sorted(tree.items()), min(len(tree), rng.choice((3, len(tree))))))
    head = damage(json.dumps(some).encode(), rng)
    size = len(head) if rng.random() < 0.8 else rng.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    return size.to_bytes(8, "little") + head + data[8 + length :]
