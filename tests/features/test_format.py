"""A new format of features: a `Format`, and its place in `FORMATS`."""

import json
from functools import partial

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import export_features, formats, import_features, read_features, write_store
from diptych.features.fields import MEANING
from diptych.features.format import Entry, Format, Sample
from diptych.features.formats import FORMATS, WRITERS, recognize_format


def lines_entries(path):
    lines = path.read_text().splitlines()[1:]
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        yield Entry(record["name"], partial(lambda one: (one["name"], one), record), number, len(lines))


def write_lines(path, items, meta, *, overwrite=False):
    records = [
        {
            "name": key,
            "w": regions.size[0],
            "h": regions.size[1],
            "boxes": regions.boxes.tolist(),
            "numbers": regions.features.tolist(),
        }
        for key, regions in items
    ]
    path.write_text("".join(f"{line}\n" for line in ["#lines", *map(json.dumps, records)]))


LINES = Format(
    recognizes=lambda sample: sample.starts(b"#lines"),
    entries=lines_entries,
    name="lines",
    write=write_lines,
    fields=MEANING | {"name": "key", "w": "width", "h": "height", "numbers": "features"},
)


def test_a_format_is_one_object(tmp_path, items, meta, monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (LINES, *FORMATS))
    monkeypatch.setitem(WRITERS, "lines", write_lines)
    store = write_store(tmp_path / "store", items(5), meta)
    export_features(store, tmp_path / "a.lines", format="lines")
    got = dict(read_features(tmp_path / "a.lines"))
    assert list(got) == list(store)
    for key in store:
        np.testing.assert_array_equal(got[key].features, store[key].features)
        np.testing.assert_array_equal(got[key].boxes, store[key].boxes)
    assert import_features(tmp_path / "a.lines", tmp_path / "again").images == 5


@pytest.mark.parametrize("form", [form for form in FORMATS if form.write])
def test_what_a_format_writes_it_recognizes(tmp_path, items, meta, form):
    store = write_store(tmp_path / "store", items(3, boxes=2, classes=5), meta)
    export_features(store, tmp_path / "out", format=form.name)
    assert recognize_format(tmp_path / "out") is form


def test_names_of_writers_are_unique():
    assert len(WRITERS) == sum(form.write is not None for form in FORMATS)


def test_a_sample_says_what_is_there(tmp_path):
    (tmp_path / "a.json").write_text('{"features": 1}')
    folder = Sample(tmp_path, None)
    assert folder.holds(".json", b"{", b'"features"')
    assert not folder.holds(".json", b"{", b'"boxes"')
    assert not folder.holds(".npz", b"PK")
    assert (folder.starts(b""), folder.alone, folder.packed) == (False, False, False)
    assert Sample(tmp_path / "a.json", b'{"features"').alone
    assert Sample(tmp_path / "a.tar", b"x" * 257 + b"ustar").packed


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"Rar!", "archive"),
        (b"{}", "one image"),
        (b"\x93NUMPY", "one image"),
    ],
)
def test_what_no_format_recognizes_is_named(tmp_path, head, message):
    (tmp_path / "a").write_bytes(head)
    with pytest.raises(FormatError, match=f"/a: .*{message}"):
        recognize_format(tmp_path / "a")
