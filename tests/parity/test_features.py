"""Feature files that the original writers made, or that the original readers have read."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from diptych.errors import FormatError
from diptych.features import ReadLog, export_features, import_features, read_features

NAME = "lxmert-obj"
EVERY = "DIPTYCH_GOLDENS" in os.environ
FIELDS = {"boxes": "boxes", "features": "features", "objects_id": "labels", "objects_conf": "scores"}
FIELDS |= {"attrs_id": "attributes", "attrs_conf": "attribute_scores"}


def compare(regions, outputs, place):
    """Every column that the original holds."""
    held = {name: outputs[f"{place}/{name}"] for name in FIELDS if f"{place}/{name}" in outputs}
    assert {"boxes", "features", "objects_id"} <= set(held)
    for name, expected in held.items():
        np.testing.assert_array_equal(getattr(regions, FIELDS[name]), expected, err_msg=f"{place} {name}")


def test_rows_are_as_the_original_reader_decodes_them(goldens):
    about = json.loads((goldens / f"{NAME}.json").read_text())
    outputs = load_file(goldens / f"{NAME}.safetensors")
    got = dict(read_features(goldens / f"{NAME}.tsv"))
    assert list(got) == [row["img_id"] for row in about["rows"]]
    for row in about["rows"]:
        regions, place = got[row["img_id"]], f"outputs/{row['img_id']}"
        assert (*regions.size, len(regions)) == (row["img_w"], row["img_h"], row["num_boxes"])
        compare(regions, outputs, place)
        normalized = regions.boxes / np.array(regions.size * 2, np.float32)
        np.testing.assert_allclose(normalized, outputs[f"{place}/boxes_normalised"], rtol=1e-6)


def test_a_file_of_the_original_layout_comes_back_byte_for_byte(goldens, tmp_path):
    source = goldens / f"{NAME}.tsv"
    import_features(source, tmp_path / "store")
    export_features(tmp_path / "store", tmp_path / "out")
    written, original = ((tmp_path / "out").read_bytes().splitlines(), source.read_bytes().splitlines())
    assert written == original


DETECTORS = ("detector-vg", "detector-vgattr")


@pytest.mark.parametrize("name", DETECTORS)
def check_rows_are_what_the_original_detector_wrote(goldens, tmp_path, name):
    about = json.loads((goldens / f"{name}.json").read_text())["info"]
    outputs = load_file(goldens / f"{name}.safetensors")
    rule = "min{}max{}".format(*about["tsv"]["pair"])
    images = [key for key in about if "raw_hw" in about[key] and f"{key}/{rule}" in about]
    counts = {key: about[f"{key}/{rule}"] for key in images}
    malformed = [key for key in images if counts[key]["num_boxes"] != counts[key]["num_feature_rows"]]
    source = goldens / about["tsv"]["file"]
    if malformed:
        line = images.index(malformed[0]) + 1
        with pytest.raises(FormatError, match=f"line {line}, image "):
            list(read_features(source))
    log = ReadLog()
    got = [regions for _, regions in read_features(source, on_error="skip", log=log)]
    assert [fault.line - 1 for fault in log.skipped] == [images.index(key) for key in malformed]
    whole = [key for key in images if key not in malformed]
    for key, regions in zip(whole, got, strict=True):
        assert [*regions.size][::-1] == about[key]["raw_hw"]
        compare(regions, outputs, f"outputs/{key}/{rule}")
    report = import_features(source, tmp_path / "store", on_error="truncate")
    assert (report.images, len(report.truncated)) == (len(images), len(malformed))


if EVERY:  # the files of the detector are no part of the repository's selection
    test_rows_are_what_the_original_detector_wrote = check_rows_are_what_the_original_detector_wrote
