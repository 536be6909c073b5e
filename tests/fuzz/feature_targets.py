"""Damages region features: every format that `diptych import` reads, and feature stores."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.arrays import archive, members, npy, npz, odd_array, odd_record
from tests.fuzz.case import Case, target
from tests.fuzz.damage import damage_bytes, damage_cells, damage_json, damage_text, damage_values

ROWS = damage_cells(b"\t")


def _import(case: Case, source: Path) -> list[str]:
    options = (
        "",
        "--on-error skip",
        "--on-error truncate",
        "--boxes clip",
        "--dtype float16 --on-error skip",
    )
    return case.pick(f"import {source.name} out {'' if case.whole else case.rng.choice(options)}")


@target("tsv", "features.tsv", "features.reader", "features.formats", "tsv_entries", "tsv", weight=2)
def tsv(case: Case) -> list[str]:
    source = case.take("formats/tsv", "in")
    case.spoil(source, ROWS, ROWS, damage_text, damage_bytes)
    return _import(case, source)


@target("caffe-tsv", "features.tsv", "caffe-tsv")
def caffe_tsv(case: Case) -> list[str]:
    source = case.take("formats/caffe-tsv", "in")
    case.spoil(source, ROWS, ROWS, damage_text, damage_bytes)
    return _import(case, source)


LMDBS = ("mmf-lmdb", "vilbert-lmdb", "uniter-lmdb", "uniter-compressed")


@target("lmdb pages", "features.lmdb", "lmdb_entries", *LMDBS, weight=3)
def lmdb_pages(case: Case) -> list[str]:
    form = case.rng.choice(LMDBS)
    source = case.take(f"formats/{form}", "in")
    case.spoil(next(source.rglob("data.mdb")), damage_bytes)
    return _import(case, source)


@target("lmdb values", "features.lmdb", "pickles", "features.fields", weight=4)
def lmdb_values(case: Case) -> list[str]:
    """Intact environments with unexpected keys or records."""
    import lmdb

    form = case.rng.choice(LMDBS)
    source = case.take(f"formats/{form}", "in")
    if case.whole:
        return _import(case, source)
    folder = next(source.rglob("data.mdb")).parent
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as database:
        keys = [bytes(key) for key, _ in database.cursor()]
        lists = [key for key in keys if b"keys" in key]
        key = case.rng.choice(lists if lists and case.chance(0.25) else keys)
        content = bytes(database.get(key))
        match case.rng.randrange(4):
            case 0:
                name, content = case.hostile_pickle()
            case 1 if not form.startswith("uniter") and b"keys" not in key:
                name, record = odd_record(pickle.loads(content), case.rng)
                content = pickle.dumps(record, protocol=case.rng.randrange(6))
            case 2 if form.startswith("uniter"):
                name, content = _odd_message(case)
            case _:
                name, content = "damaged", damage_bytes(content, case.rng)
        database.put(key, content)
    (folder / "lock.mdb").unlink(missing_ok=True)
    case.notes.append(f"{form}: {name} under {key!r}")
    return _import(case, source)


def _odd_message(case: Case) -> tuple[str, bytes]:
    """A msgpack message that claims more than it holds, or contains a pickle."""
    import msgpack

    body = case.hostile_pickle()[1]
    array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": body}
    kind = case.rng.choice(("zz", 5, [["a", "O"]], "<f4"))
    typed = {b"nd": True, b"type": kind, b"kind": b"", b"shape": [2**40], b"data": b""}
    odd: dict[str, bytes] = {
        "objects": msgpack.packb({"features": array, "norm_bb": array}),
        "odd array": msgpack.packb({"features": typed}),
        "number": msgpack.packb(5),
        "complex": msgpack.packb({"features": {b"complex": True, b"data": "x"}}),
        "deep": b"\x91" * 100_000 + b"\xc0",
        "many": b"\xdd\xff\xff\xff\xff",
        "many pairs": b"\xdf\xff\xff\xff\xff",
        "long": b"\xc6\xff\xff\xff\xff",
        "extension": b"\xc9\x00\x00\x00\x01\x05a",
        "time": b"\xd6\xff\xff\xff\xff\xff",
    }
    name = case.rng.choice(sorted(odd))
    return name, odd[name]


@target("npz", "features.numpy_files", "npz_entries", "uniter-npz", weight=2)
def npz_files(case: Case) -> list[str]:
    import numpy as np

    source = case.take("formats/uniter-npz", "in")
    path = case.rng.choice(sorted(source.iterdir()))
    with np.load(path) as arrays:
        record = {name: arrays[name] for name in arrays.files}
    match case.rng.randrange(3):
        case 0:
            case.spoil(path, damage_bytes)
        case 1:
            name, odd = odd_record(record, case.rng)
            case.put(path, name, npz(odd))
        case _:
            case.spoil_archive(path, case.hostile_pickle()[1])
    return _import(case, source)


@target("npy", "features.numpy_files", "pickles", "npy_entries", "mmf-npy", weight=2)
def npy_files(case: Case) -> list[str]:
    source = case.take("formats/mmf-npy", "in")
    path = case.rng.choice(sorted(source.iterdir()))
    match case.rng.randrange(3):
        case 0:
            case.spoil(path, damage_bytes)
        case 1:
            name, value = odd_array(case.rng)
            case.put(path, name, npy(value))
        case _:
            name, body = case.hostile_pickle()
            case.put(path, name, npy(object()).partition(b"\x80")[0] + body)
    return _import(case, source)


@target("vectors", "features.vectors", "cli.embed", weight=1)
def own_vectors(case: Case) -> list[str]:
    """Vectors that somebody else made, for the pictures of a folder."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    case.take("w/img", "img")
    keys = sorted(file.stem for file in (case.folder / "img").iterdir())
    numbers = np.arange(3 * len(keys), dtype=np.float32).reshape(-1, 3)
    path = case.folder / case.rng.choice(("own.npy", "own.parquet"))
    if path.suffix == ".npy":
        np.save(path, numbers)
    else:
        pyarrow.parquet.write_table(pa.table({"id": keys, "vector": list(numbers)}), path)
    if path.suffix == ".npy" and case.chance(0.5):
        name, value = odd_array(case.rng)
        case.put(path, name, npy(value))
    else:
        case.spoil(path, damage_bytes)
    return case.pick(f"embed img out --from {path.name}")


@target("json", "features.json_files", "json_entries", "vlbert-json", "nav13n-json", weight=1.5)
def json_features(case: Case) -> list[str]:
    source = case.take(f"formats/{case.rng.choice(('vlbert-json', 'nav13n-json'))}", "in")
    case.spoil(case.rng.choice(sorted(source.iterdir())), damage_json, damage_bytes)
    return _import(case, source)


@target("zip", "features.json_files", "features.format", "zip_entries", "vlbert-zip", weight=2)
def zip_features(case: Case) -> list[str]:
    source = case.take("formats/vlbert-zip", "in")
    held = members(source.read_bytes())
    match case.rng.randrange(3):
        case 0:
            case.spoil(source, damage_bytes)
        case 1:
            name = case.rng.choice(sorted(held))
            case.put(source, f"damaged {name}", archive({**held, name: damage_json(held[name], case.rng)}))
        case _:
            case.spoil_archive(source, b"")
    return _import(case, source)


@target("hdf5 bytes", "features.hdf5", "hdf5_entries", "volta-hdf5", weight=2)
def hdf5_bytes(case: Case) -> list[str]:
    source = case.take("formats/volta-hdf5", "in")
    case.spoil(source, damage_bytes)
    return _import(case, source)


@target("hdf5 groups", "features.hdf5", "volta-hdf5", weight=2)
def hdf5_groups(case: Case) -> list[str]:
    """Intact files with unexpected links, types and shapes."""
    import h5py
    import numpy as np

    source = case.take("formats/volta-hdf5", "in")
    if case.whole:
        return _import(case, source)
    with h5py.File(source, "a") as file:
        group = file[case.rng.choice(sorted(file))]
        key = case.rng.choice(sorted(group) if isinstance(group, h5py.Group) else [""])
        parent = group if key else file
        key = key or group.name
        changes: dict[str, Callable[[], Any]] = {
            "soft link": lambda: parent.__setitem__(key, h5py.SoftLink("/nowhere")),
            "link to itself": lambda: parent.__setitem__(key, h5py.SoftLink(f"{parent.name}/{key}")),
            "external link": lambda: parent.__setitem__(key, h5py.ExternalLink("/etc/hostname", "/")),
            "group": lambda: parent.create_group(key),
            "huge": lambda: parent.create_dataset(key, (2**40,), "f4", chunks=(1024,)),
            "large": lambda: parent.create_dataset(key, (1 << 15, 1 << 17), "f4", chunks=(1024, 1024)),
            "empty": lambda: parent.create_dataset(key, data=h5py.Empty("f4")),
            "text": lambda: parent.create_dataset(key, data="x"),
            "bytes": lambda: parent.create_dataset(key, data=np.array([b"\xff\xfe"])),
            "references": lambda: parent.create_dataset(key, (1,), h5py.ref_dtype),
            "ragged": lambda: parent.create_dataset(key, (2,), h5py.vlen_dtype("i4")),
            "odd": lambda: parent.create_dataset(key, data=odd_array(case.rng)[1]),
            "outside": lambda: parent.create_dataset(key, (4,), "f4", external=[("/etc/hostname", 0, 16)]),
            "gone": lambda: None,
        }
        name = case.rng.choice(sorted(changes))
        del parent[key]
        try:
            changes[name]()
        except (TypeError, ValueError, OSError):  # HDF5 refuses this value
            parent[key] = np.zeros(0)
    case.notes.append(f"{name} as {key}")
    return _import(case, source)


@target("names", "cli.import_", weight=0.4)
def names(case: Case) -> list[str]:
    case.spoil(case.take("names.txt"), damage_text)
    return case.pick("import @/formats/tsv out --classes names.txt --attributes names.txt")


def _of_store(case: Case) -> list[str]:
    forms = ("tsv", "mmf-lmdb", "uniter-npz", "volta-hdf5")
    return case.pick(
        "check @/w --features store",
        "predict @/runs/u --root @/w --features store --splits dev_seen --out out",
        "score @/w/img/00001.png --text a --model @/runs/u --features store",
        f"export store out --format {case.rng.choice(forms)}",
    )


@target("store bytes", "features.store", "features.shard", "features.merged", weight=3)
def store_bytes(case: Case) -> list[str]:
    store = case.take("w/features", "store")
    case.spoil(case.rng.choice(sorted(store.iterdir())), damage_bytes)
    return _of_store(case)


@target("store schema", "features.store", "features.shard", weight=3)
def store_schema(case: Case) -> list[str]:
    """Intact Arrow files with unexpected columns, types, numbers or metadata."""
    import pyarrow as pa

    path = case.rng.choice(sorted(case.take("w/features", "store").glob("*.arrow")))
    if case.whole:
        return _of_store(case)
    with pa.ipc.open_file(path.read_bytes()) as reader:
        table = reader.read_all()
    column = case.rng.choice(table.column_names)
    at, size = table.column_names.index(column), len(table)
    name = case.rng.choice(("gone", "twice", "empty", "nulls", "type", "mixed", "described"))
    odd = pa.array([case.rng.choice(("x", -1, [1.0], 2**62, float("nan"), b"\xff"))] * size)
    meta = dict(table.schema.metadata or {})
    match name:
        case "gone":
            table = table.remove_column(at)
        case "twice":
            table = pa.concat_tables([table, table])
        case "empty":
            table = table.slice(0, 0)
        case "nulls":
            table = table.set_column(at, column, pa.nulls(len(table), table.schema.field(column).type))
        case "type":
            table = table.set_column(at, column, odd)
        case "mixed":
            table = table.take(sorted(range(len(table)), key=lambda _: case.rng.random()))
        case _:
            told = damage_values(json.loads(meta.get(b"diptych", b"{}")), case.rng)
            meta[b"diptych"] = json.dumps(told).encode()
    table = table.replace_schema_metadata(meta)
    with pa.OSFile(os.fspath(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    case.notes.append(f"{name} {column} of {path.name}")
    return _of_store(case)
