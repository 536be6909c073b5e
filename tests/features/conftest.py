import base64
import csv
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import lmdb
import msgpack
import numpy as np
import pytest

from diptych.files import MARK
from diptych.types import FeatureMeta, Regions

COLUMNS = ["img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"]
COLUMNS += ["num_boxes", "boxes", "features"]
MakeItems = Callable[..., list[tuple[str, Regions]]]


def make_regions(count: int, *, width: int = 8, seed: int = 0, classes: int = 0) -> Regions:
    generator = np.random.default_rng([seed, count])
    corners = generator.uniform(0, 200, (count, 2))
    return Regions(
        features=generator.standard_normal((count, width)).astype(np.float32),
        boxes=np.concatenate([corners, corners + 50], axis=1).astype(np.float32),
        size=(320, 260 + seed % 7),
        labels=generator.integers(0, 1600, count),
        scores=generator.random(count).astype(np.float32),
        attributes=generator.integers(0, 400, count),
        attribute_scores=generator.random(count).astype(np.float32),
        probabilities=generator.random((count, classes)).astype(np.float32) if classes else None,
    )


@pytest.fixture
def regions() -> Callable[..., Regions]:
    return make_regions


@pytest.fixture
def items() -> MakeItems:
    """Images with 0, 1, 2, ... 4 regions in turn, or with `boxes` each."""

    def make(
        images: int, *, boxes: int | None = None, width: int = 8, classes: int = 0
    ) -> list[tuple[str, Regions]]:
        counts = (number % 5 if boxes is None else boxes for number in range(images))
        return [
            (f"{number:05d}", make_regions(count, width=width, seed=number, classes=classes))
            for number, count in enumerate(counts)
        ]

    return make


@pytest.fixture
def meta() -> FeatureMeta:
    return FeatureMeta(feature_dim=8, detector="world", classes=("cat", "dog"))


@pytest.fixture
def same() -> Callable[[Regions, Regions], None]:
    """Asserts that two Regions hold equal numbers of equal types."""

    def check(got: Regions, expected: Regions) -> None:
        assert got.size == expected.size
        for name in Regions.__dataclass_fields__:
            if name != "size":
                np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)

    return check


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder by name, but for the mark of an export; or a file by nothing."""

    def read(path: Path) -> dict[str, bytes]:
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != MARK)
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in files or [path]}

    return read


def text(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def make_row(key, regions, **changes):
    """A row as the original extractors make it, with some columns changed."""
    values = {
        "img_id": key,
        "img_h": regions.size[1],
        "img_w": regions.size[0],
        "objects_id": text(regions.labels, "<i8"),
        "objects_conf": text(regions.scores, "<f4"),
        "attrs_id": text(regions.attributes, "<i8"),
        "attrs_conf": text(regions.attribute_scores, "<f4"),
        "num_boxes": len(regions),
        "boxes": text(regions.boxes, "<f4"),
        "features": text(regions.features, "<f4"),
    }
    return values | changes


def write_all_rows(path, rows, *, end="\r\n"):
    """Python's csv module, as the originals use it."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator=end)
        writer.writerows(rows)
    return path


@pytest.fixture
def row():
    return make_row


@pytest.fixture
def write_rows():
    return write_all_rows


# Files of the formats as the originals' own scripts make them, written without our code.


def _arrays(regions):
    return {
        "objects_id": regions.labels,
        "objects_conf": regions.scores,
        "attrs_id": regions.attributes,
        "attrs_conf": regions.attribute_scores,
        "boxes": regions.boxes,
        "features": regions.features,
    }


def _tsv(path, items):
    write_all_rows(path, [make_row(key, regions) for key, regions in items])


def _caffe(path, items):
    names = ["image_id", "image_w", "image_h", "num_boxes", "boxes", "features"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t")
        for key, one in items:
            shown = {name: text(getattr(one, name), "<f4") for name in ("boxes", "features")}
            size = {"image_w": one.size[0], "image_h": one.size[1], "num_boxes": len(one)}
            writer.writerow({"image_id": key, **size, **shown})


def mmf_info(one):
    return {
        "bbox": one.boxes,
        "num_boxes": len(one),
        "objects": one.labels,
        "cls_prob": one.probabilities,
        "image_width": one.size[0],
        "image_height": one.size[1],
    }


def put_all(path, pairs, keys):
    with lmdb.open(str(path), map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
        for key, value in [*pairs, keys]:
            transaction.put(key, value)


def _mmf_lmdb(path, items):
    order = ["image_height", "image_width", "num_boxes", "objects", "cls_prob", "bbox"]
    pairs = []
    for key, one in items:
        info = mmf_info(one)
        item = {"feature_path": key, "features": one.features} | {name: info[name] for name in order}
        pairs.append((key.encode(), pickle.dumps(item, protocol=4)))
    put_all(path, pairs, (b"keys", pickle.dumps([key for key, _ in pairs], protocol=4)))


def _mmf_npy(path, items):
    path.mkdir()
    for key, one in items:
        np.save(path / f"{key}.npy", one.features)
        np.save(path / f"{key}_info.npy", mmf_info(one))


def uniter_arrays(one):
    boxes = one.boxes / np.array(one.size * 2, np.float32)
    shown = {
        "norm_bb": np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1),
        "features": one.features,
        "conf": one.scores,
        "soft_labels": one.probabilities,
    }
    return {name: value.astype(np.float16) for name, value in shown.items()}


def _uniter_npz(path, items):
    path.mkdir()
    for key, one in items:
        np.savez_compressed(path / f"{key}.npz", **uniter_arrays(one))


def _uniter_lmdb(path, items):
    def packed(value):
        about = {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape}
        return about | {b"data": value.tobytes()}

    pairs = [
        (
            f"{key}.npz".encode(),
            msgpack.dumps(
                {name: packed(value) for name, value in uniter_arrays(one).items()}, use_bin_type=True
            ),
        )
        for key, one in items
    ]
    put_all(path, pairs, (b"__keys__", json.dumps([f"{key}.npz" for key, _ in items]).encode()))


def _uniter_compressed(path, items):
    def packed(one):
        with io.BytesIO() as file:
            np.savez_compressed(file, **uniter_arrays(one))
            return file.getvalue()

    pairs = [(f"{key}.npz".encode(), packed(one)) for key, one in items]
    put_all(path, pairs, (b"__keys__", json.dumps([f"{key}.npz" for key, _ in items]).encode()))


def _vilbert_lmdb(path, items):
    pairs = []
    for key, one in items:
        size = {"image_id": key, "image_h": one.size[1], "image_w": one.size[0], "num_boxes": len(one)}
        shown = {name: base64.b64encode(getattr(one, name)) for name in ("boxes", "features")}
        pairs.append((key.encode(), pickle.dumps(size | shown, protocol=4)))
    put_all(path, pairs, (b"keys", pickle.dumps([key for key, _ in pairs], protocol=4)))


def _vlbert_record(key, one):
    shown = {"boxes": one.boxes, "classes": one.probabilities, "features": one.features}
    record = {"image_id": key, "image_w": one.size[0], "image_h": one.size[1], "num_boxes": len(one)}
    return json.dumps(record | {name: text(value, "<f4") for name, value in shown.items()})


def _vlbert_json(path, items):
    path.mkdir()
    for key, one in items:
        (path / f"{key}.json").write_text(_vlbert_record(key, one))


def _vlbert_zip(path, items):
    with zipfile.ZipFile(path, "w") as archive:
        for key, one in items:
            archive.writestr(zipfile.ZipInfo(f"{key}.json"), _vlbert_record(key, one))


def _nav13n_json(path, items):
    path.mkdir()
    for key, one in items:
        record = {
            "img_id": key,
            "img_h": one.size[1],
            "img_w": one.size[0],
            "objects_id": one.labels.tolist(),
            "objects_conf": one.scores.tolist(),
            "num_boxes": len(one),
            "boxes": text(one.boxes, "<f4"),
            "features": text(one.features, "<f4"),
        }
        (path / f"{key}.json").write_text(json.dumps(record))


def _volta_hdf5(path, items):
    names = {"objects_id": "obj_id", "objects_conf": "obj_conf", "attrs_id": "attr_id"}
    names |= {"attrs_conf": "attr_conf"}
    with h5py.File(path, "w") as file:
        for key, one in items:
            group = file.create_group(key)
            for name, value in _arrays(one).items():
                group[names.get(name, name)] = value
            group["img_w"], group["img_h"] = one.size


ORIGINALS = {
    "tsv": _tsv,
    "caffe-tsv": _caffe,
    "mmf-lmdb": _mmf_lmdb,
    "mmf-npy": _mmf_npy,
    "uniter-lmdb": _uniter_lmdb,
    "uniter-npz": _uniter_npz,
    "uniter-compressed": _uniter_compressed,
    "vilbert-lmdb": _vilbert_lmdb,
    "vlbert-json": _vlbert_json,
    "vlbert-zip": _vlbert_zip,
    "nav13n-json": _nav13n_json,
    "volta-hdf5": _volta_hdf5,
}


@pytest.fixture
def original(tmp_path, items) -> Callable[..., Path]:
    """Writes a few images in a format, as the original scripts do: `original("mmf-lmdb", images)`."""

    def make(name, images=None) -> Path:
        path = tmp_path / f"original-{name}"  # no ending, so that only the content can be recognized
        ORIGINALS[name](path, items(7, boxes=3, classes=5) if images is None else images)
        return path

    return make
