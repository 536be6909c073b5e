import os
from pathlib import Path

import pytest
from typing_extensions import TypedDict

from diptych.documents import MAX_DEPTH, check_shape, parse_json, parse_yaml, read_json, read_yaml, shorten
from diptych.errors import FormatError


class Settings(TypedDict):
    name: str
    sizes: list[int]
    rate: float


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'lol'}]\n" for n in range(30))
HOSTILE_YAML = {
    "aliases": LAUGHS,
    "self": "x: &x [*x]",
    "object": "x: !!python/object/apply:os.system ['true']",
    "name": "x: !!python/name:os.system",
    "date": "x: 2001-99-99",
    "float": "x: !!float abc",
    "empty int": "x: !!int ''",
    "timestamp": "x: !!timestamp x",
    "list as key": "? [a, b]\n: c",
    "null as key": "null: 2",
    "sexagesimal merge": "<<: 5",
    "tab": "\t- x",
    "null of a list": "x: !!null [1]",
    "deep and open": "x: " + "[" * 3000,
    "deep": "x: " + "[" * 900 + "]" * 900,
    "twice": "a: 1\na: 2",
    "bytes": "\0",
}


@pytest.mark.parametrize("text", HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_gets_one_error(text: str) -> None:
    with pytest.raises(FormatError, match=r"study\.yaml"):
        parse_yaml(text, where="study.yaml")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"a": 1, "a": 2}', '["\\ud800"]', '{"\\udfff": 1}', "9" * 5000, b"\xff",
     "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)],
)  # fmt: skip
def test_hostile_json_gets_one_error(text: str | bytes) -> None:
    with pytest.raises(FormatError, match=r"state\.json"):
        parse_json(text, where="state.json")


def test_plain_values_come_back() -> None:
    assert parse_yaml("a: [1, 2.5, null, yes, 'ä']", where="x") == {"a": [1, 2.5, None, True, "ä"]}
    assert parse_json('{"a": ["\\ud83d\\ude00", 1e3]}', where="x") == {"a": ["😀", 1000.0]}


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"name": "x", "sizes": [1, "2"], "rate": 1}, r"sizes\.1"),
        ({"name": 5, "sizes": [], "rate": 1}, "name"),
        ({"name": "x", "rate": 1}, "sizes"),
        ({"name": "x", "sizes": [True], "rate": 1}, r"sizes\.0"),
        ([], "dict"),
    ],
)
def test_error_names_the_file_and_the_key(values: object, key: str) -> None:
    with pytest.raises(FormatError, match=rf"here\.json: .*{key}"):
        check_shape(values, Settings, where="here.json")


def test_files_are_read_and_typed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: x\nsizes: [3]\nrate: 1", encoding="utf-8")
    (tmp_path / "a.json").write_text('{"name": "x", "sizes": [3], "rate": 1}', encoding="utf-8-sig")
    expected = {"name": "x", "sizes": [3], "rate": 1.0}
    assert read_yaml(tmp_path / "a.yaml", Settings) == expected
    assert read_json(tmp_path / "a.json", Settings) == expected


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(FormatError, match=r"pipe\.json: "):
        read_json(tmp_path / "pipe.json", dict)


def test_advice_ends_the_message(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"Copy it again\.$"):
        read_json(tmp_path / "a.json", dict, advice="Copy it again.")


def test_long_values_are_shortened() -> None:
    assert len(shorten("x" * 5000)) <= 80
    assert shorten(list(range(100))) == "a list of 100"
