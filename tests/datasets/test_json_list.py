import json

import pytest

from diptych.datasets import json_list
from diptych.datasets.json_list import read_list
from diptych.errors import FormatError

RECORDS = [{"a": "x" * 30, "b": [1, 2.5, None, True]}, "été ✓", {}, [[]], {"c": {"d": '"]},{['}}]


@pytest.fixture(params=[1, 2, 7, 64, 1 << 20])
def chunk(request, monkeypatch):
    monkeypatch.setattr(json_list, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("records", [[], RECORDS, [12, 345, -1.5e3, 0]])
def test_records_come_as_they_are(tmp_path, records, indent):
    path = tmp_path / "list.json"
    path.write_text(f"\ufeff {json.dumps(records, indent=indent, ensure_ascii=False)}\n\n", encoding="utf-8")
    assert [*read_list(path)] == records


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1}', "0"),
        ("", "0"),
        ('[{"a": 1}', "9"),
        ('[{"a": 1}, {"a": "unfin', None),
        ('[{"a": 1} {"a": 2}]', "10"),
        ('[{"a": 1}, ]', "11"),
        ('[{"a": 1}] x', "11"),
        ("[NaN]", "1"),
        (f"[{'[' * 100_000}", None),
    ],
)
def test_damage_is_one_error_with_its_place(tmp_path, text, place):
    path = tmp_path / "list.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError) as error:
        list(read_list(path))
    assert str(path) in str(error.value)
    assert place is None or f"character {place}" in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "list.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(FormatError, match=r"list\.json"):
        list(read_list(path))


def test_a_record_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_list, "CHUNK", 100)
    monkeypatch.setattr(json_list, "LARGEST", 1000)
    path = tmp_path / "list.json"
    path.write_text('["' + "x" * 100_000, encoding="utf-8")
    opened = json_list._Window(path)
    opened.take()
    with opened.file, pytest.raises(FormatError, match=r"list\.json"):
        opened.value()
    assert opened.before + len(opened.text) < 2000
