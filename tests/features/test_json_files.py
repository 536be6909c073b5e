import base64
import json
import zipfile

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import read_features

FIVE_BYTES = base64.b64encode(b"12345").decode()
TWENTY_NUMBERS = base64.b64encode(bytes(80)).decode()


def test_object_names_beside_their_indices_are_passed_over(original, regions):
    one = regions(2)
    source = original("nav13n-json", [("7", one)])
    record = json.loads((source / "7.json").read_text())
    (source / "7.json").write_text(json.dumps({"objects": ["dog", "cat"], **record}))
    [(_, got)] = read_features(source)
    assert got.labels.tolist() == one.labels.tolist()


@pytest.mark.parametrize("name", ["vlbert-json", "nav13n-json"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"boxes": base64.b64encode(b"12345").decode()},
            "boxes .*5 bytes.*<f4",
        ),
        (
            {"features": base64.b64encode(bytes(80)).decode()},
            "features .*20 .*8",
        ),
        ({"features": "#"}, "features .*base64"),
        ({"features": [["a"]]}, "features .*<U1"),
        ({"features": [[1.0], [1.0, 2.0]]}, "features"),
        ({"num_boxes": 4}, ".*num_boxes 4"),
        ({"num_boxes": None, "boxes": None}, ".*no boxes"),
    ],
)
def test_a_bad_record_is_named(original, name, changes, message):
    source = original(name)
    file = source / "00003.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(FormatError, match=f"{source.name}: image '00003': {message}"):
        list(read_features(source))


@pytest.mark.parametrize(("text", "message"), [("[1]", ".*list"), ('{"a"', "")])
def test_a_file_that_is_no_record_is_named(original, text, message):
    source = original("vlbert-json")
    (source / "00003.json").write_text(text)
    with pytest.raises(FormatError, match=rf"image '00003': 00003\.json{message}"):
        list(read_features(source))


def test_two_members_of_one_id_are_named(original):
    source = original("vlbert-zip")
    with zipfile.ZipFile(source, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("00003.json", archive.read("00003.json"))
    with pytest.raises(FormatError, match=r"image '00003': .*second"):
        list(read_features(source))


def test_a_damaged_member_is_named(original):
    source = original("vlbert-zip")
    data = bytearray(source.read_bytes())
    data[data.index(b'"image_id": "00003"') + 3] ^= 1
    source.write_bytes(data)
    with pytest.raises(FormatError, match=r"image '00003': .*CRC"):
        list(read_features(source))


def test_soft_classes_of_another_width_are_named(original, items):
    images = items(3, boxes=3, classes=5)
    source = original("vlbert-json", images)
    file = source / "00001.json"
    record = json.loads(file.read_text())
    record["classes"] = base64.b64encode(np.ones(12, np.float32)).decode()
    file.write_text(json.dumps(record))
    with pytest.raises(FormatError, match=r"image '00001': classes .*12 .*3 .*5"):
        list(read_features(source))
