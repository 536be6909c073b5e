import json

import pytest

from diptych.datasets import json_records
from diptych.datasets.json_records import Record, first_member, read_members, write_list
from diptych.errors import FormatError

VALUES = [1, 23.5, "a]b,}", None, True, {"x": [1, {"y": "z"}]}, [], "\u2028é", -7]


@pytest.fixture(autouse=True, params=[1, 3, 64, 1 << 20])
def _windows_of_any_size(request, monkeypatch):
    monkeypatch.setattr(json_records, "CHUNK", request.param)


@pytest.mark.parametrize("indent", [None, 2])
def test_members_are_those_of_json(tmp_path, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(VALUES, indent=indent), encoding="utf-8")
    assert list(read_members(path)) == list(enumerate(VALUES))
    path.write_text("\ufeff" + json.dumps({"n": 12, "list": VALUES, "more": [1]}, indent=indent), "utf-8")
    expected = [("n", 12), *(("list", value) for value in VALUES), ("more", [1])]
    assert list(read_members(path, lists=("list",))) == expected
    assert first_member(path) == ("n", 12)


def test_empty_files_of_both_kinds(tmp_path):
    path = tmp_path / "a.json"
    for text in ("[]", " { } \n"):
        path.write_text(text)
        assert list(read_members(path)) == []
    assert first_member(path) == (None, None)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 0),
        ("12", 0),
        ("[1, 2", 5),
        ('[{"a": 1}, {"b"', 11),
        ("[1] 2", 4),
        ("[1 2]", 3),
        ("[NaN]", 1),
        ('{"a" 1}', 5),
    ],
)
def test_damage_is_named_with_its_position(tmp_path, text, place):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(FormatError) as error:
        list(read_members(path))
    assert f"{path}:" in str(error.value)
    assert f"character {place}:" in str(error.value)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'["a", "\xff"]')
    with pytest.raises(FormatError, match=r"a\.json"):
        list(read_members(path))


def test_a_record_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "LARGEST", 50)
    path = tmp_path / "a.json"
    path.write_text('["' + "x" * 500)
    with pytest.raises(FormatError, match="character 1:"):
        list(read_members(path))


def test_a_list_is_written_whole(tmp_path):
    write_list(tmp_path / "a.json", iter([{"a": 1}, {"é": 2}]))
    assert (tmp_path / "a.json").read_text("utf-8") == '[{"a": 1},\n{"é": 2}]\n'
    write_list(tmp_path / "b.json", iter([]))
    assert json.loads((tmp_path / "b.json").read_text()) == []


@pytest.mark.parametrize(
    ("method", "value", "shown"),
    [
        ("text", 3, "3"),
        ("text", "\ud800", "surrogate"),
        ("number", True, "True"),
        ("number", -1, "-1"),
        ("number", 10**30, "whole"),
        ("items", {}, "{}"),
        ("scores", {"a": 2}, "2"),
        ("scores", {"a": "1"}, "'1'"),
        ("scores", {"a": True}, "True"),
        ("scores", [], "[]"),
    ],
)
def test_a_field_of_another_type_is_named(method, value, shown):
    with pytest.raises(FormatError, match=r"file: record 7.*`x`") as error:
        getattr(Record({"x": value}, "file: record 7"), method)("x")
    assert shown in str(error.value)


def test_scores_begin_with_the_best():
    assert list(Record({"x": {"a": 0.3, "b": 1}}, "here").scores("x").items()) == [("b", 1.0), ("a", 0.3)]
    with pytest.raises(FormatError, match=r"here.*`y`"):
        Record({}, "here").text("y")
    with pytest.raises(FormatError, match=r"here.*\[1\]"):
        Record([1], "here")
