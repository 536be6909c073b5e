"""Files of region features as the scripts of the original toolkits make them, written without our code."""

import base64
import csv
import io
import json
import pickle
import zipfile

import h5py
import lmdb
import msgpack
import numpy as np

COLUMNS = ["img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"]
COLUMNS += ["num_boxes", "boxes", "features"]


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
    return {name: value.astype(np.float16) for name, value in shown.items() if value is not None}


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
    shown = {name: text(value, "<f4") for name, value in shown.items() if value is not None}
    return json.dumps(record | shown)


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
