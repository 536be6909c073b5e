"""A memory on disk: what was added is there, what was removed is gone, and nothing foreign is touched."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.memory.toy import case, memory_of

from diptych.errors import CheckpointMismatch, ConfigError, FormatError
from diptych.memory import Learned, Memory, change

LEARNED = Learned(least=0.5, weight=3.0, split="dev", checksum="x", examples=40)


def test_written_and_read_it_is_the_same(tmp_path):
    memory = replace(memory_of([1, 0], [0, 1]), learned=LEARNED, center=np.array([0.25, -1], np.float32))
    memory.save(tmp_path / "memory")
    read = Memory.load(tmp_path / "memory")
    assert read.cases == memory.cases
    assert (read.learned, read.model, read.classes, read.parts) == (LEARNED, "m", memory.classes, ("pooled",))
    np.testing.assert_array_equal(read.vectors, memory.vectors)
    np.testing.assert_array_equal(read.center, memory.center)


def test_cases_come_and_go_by_id_and_by_policy():
    memory = memory_of([1, 0], [0, 1])
    more = memory.with_cases([case("spam", policy="spam")], np.ones((1, 2), np.float32))
    assert [one.id for one in more.cases] == ["0", "1", "spam"]
    assert more.policies == ("main", "spam")
    less = more.without(["1"])
    assert [one.id for one in less.cases] == ["0", "spam"]
    np.testing.assert_array_equal(less.vectors, [[1, 0], [1, 1]])
    assert [one.id for one in more.without(policy="main").cases] == ["spam"]
    for wrong, said in (({"ids": ["spma"]}, "spam"), ({"policy": "mainn"}, "main")):
        with pytest.raises(ConfigError, match=f"'{said}'"):
            more.without(**wrong)
    with pytest.raises(ConfigError, match="1"):
        memory.with_cases([case("1")], np.ones((1, 2), np.float32))
    with pytest.raises(ConfigError, match="hateful"):
        memory.with_cases([case("2", label="hatefull")], np.ones((1, 2), np.float32))
    with pytest.raises(ConfigError, match="finite"):
        memory.with_cases([case("2")], np.full((1, 2), np.nan, np.float32))


def test_another_model_is_refused():
    with pytest.raises(ConfigError, match="other"):
        memory_of([1, 0]).require_model("other")


def test_a_change_starts_from_what_is_on_disk(tmp_path):
    place = tmp_path / "memory"
    change(place, lambda memory: memory or memory_of([1, 0]))
    change(place, lambda memory: memory.with_cases([case("new")], np.ones((1, 2), np.float32)))
    assert [one.id for one in Memory.load(place).cases] == ["0", "new"]
    # A memory that is being changed refuses a second change, which would be lost.
    with pytest.raises(ConfigError, match="memory"):
        change(place, lambda memory: change(place, lambda same: same))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["memory"]


def test_folders_of_others_are_kept(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter.txt").write_text("dear")
    with pytest.raises(FormatError, match="theirs"):
        change(tmp_path / "theirs", lambda memory: memory_of([1, 0]))
    with pytest.raises(ConfigError, match="theirs"):
        memory_of([1, 0]).save(tmp_path / "theirs")
    memory_of([1, 0]).save(tmp_path / "memory")
    (tmp_path / "memory" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"letter\.txt"):
        memory_of([1, 0]).save(tmp_path / "memory")
    assert (tmp_path / "memory" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("diptych_memory", 2),
        ("neighbors", 0),
        ("classes", ["benign"]),
        ("classes", ["benign", "benign"]),
        ("learned", {"least": 2.0, "weight": 1.0, "split": "", "checksum": "", "examples": 1}),
        ("learned", {"least": 0.0, "weight": -1.0, "split": "", "checksum": "", "examples": 1}),
        ("more", 1),
    ],
)
def test_impossible_lists_are_refused(tmp_path, key, value):
    memory_of([1, 0]).save(tmp_path / "memory")
    path = tmp_path / "memory" / "memory.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(FormatError, match="memory"):
        Memory.load(tmp_path / "memory")


@pytest.mark.parametrize(
    "wrong", [{"id": "1"}, {"label": "rude"}, {"scores": [0.5]}, {"scores": [0.5, 2.0]}, {"path": "x"}]
)
def test_impossible_cases_are_refused(tmp_path, wrong):
    memory_of([1, 0], [0, 1]).save(tmp_path / "memory")
    path = tmp_path / "memory" / "memory.json"
    tree = json.loads(path.read_text())
    tree["cases"][0] |= wrong
    path.write_text(json.dumps(tree))
    with pytest.raises(FormatError, match="memory"):
        Memory.load(tmp_path / "memory")


@pytest.mark.parametrize(
    "tensors",
    [
        {"vectors": torch.zeros(1, 2), "center": torch.zeros(2)},  # a row is missing
        {"vectors": torch.zeros(2, 2), "center": torch.zeros(3)},
        {"vectors": torch.zeros(2, 2).double(), "center": torch.zeros(2)},
        {"vectors": torch.full((2, 2), torch.nan), "center": torch.zeros(2)},
        {"vectors": torch.zeros(2, 2)},
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, tensors):
    memory_of([1, 0], [0, 1]).save(tmp_path / "memory")
    save_file(tensors, tmp_path / "memory" / "vectors.safetensors")
    with pytest.raises((FormatError, CheckpointMismatch), match=r"vectors\.safetensors"):
        Memory.load(tmp_path / "memory")
