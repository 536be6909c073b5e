import json

import pytest

from diptych.errors import FormatError
from diptych.study.progress import Checksums, StepRecord, read_record, write_record


def test_a_record_comes_back(tmp_path):
    record = StepRecord(step="U/train", state="done", seconds=1.5, facts={"steps": 3})
    write_record(tmp_path, "key", record)
    assert read_record(tmp_path, "key") == record
    assert read_record(tmp_path, "other") is None


@pytest.mark.parametrize("name", ["step", "state", "seconds", "error", "facts", "more"])
@pytest.mark.parametrize("value", [[], {"x": [1]}, True])
def test_a_record_of_other_types_is_named(tmp_path, name, value):
    write_record(tmp_path, "key", StepRecord(step="a", state="done", seconds=1))
    path = tmp_path / "key.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    if name == "facts" and isinstance(value, dict):
        assert read_record(tmp_path, "key").facts == value
        return
    with pytest.raises(FormatError, match=rf"key\.json: {name}: "):
        read_record(tmp_path, "key")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 5}', "[" * 5000, '{"a": "\\ud800"}'])
def test_checksums_that_cannot_be_read_are_made_again(tmp_path, text):
    (tmp_path / "sums.json").write_text(text)
    (tmp_path / "file").write_text("x")
    assert Checksums(tmp_path / "sums.json")(tmp_path / "file") == Checksums(tmp_path / "new")(
        tmp_path / "file"
    )
