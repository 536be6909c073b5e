from pathlib import Path

import numpy as np
import pytest

from diptych.data.sampler import Plan
from diptych.datasets import Mix, Table
from diptych.errors import ConfigError
from diptych.predictions import Predictions


@pytest.fixture
def mix(tmp_path: Path) -> Mix:
    members = {}
    for name, count in (("coco", 10), ("vg", 4)):
        folder = tmp_path / name
        folder.mkdir()
        rows = [f"{number},{number}.png,word {number},{'ab'[number % 2]}\n" for number in range(count)]
        (folder / "train.csv").write_text("".join(["id,image,text,label\n", *rows]))
        columns = {"id": "id", "image": "image", "text": "text", "label": "label"}
        members[name] = Table(folder, "train", columns=columns)
    return Mix(members, weights={"coco": 0.5, "vg": 2.5})


def test_members_follow_each_other_and_nothing_collides(mix: Mix, tmp_path: Path) -> None:
    assert len(mix) == 14
    first, last = mix[0], mix[-1]
    assert (first.id, first.pairs[0].image) == ("coco/0", "coco:0")
    assert (last.id, last.pairs[0].image, last.pairs[0].text) == ("vg/3", "vg:3", "word 3")
    assert mix.images["coco:3"] == tmp_path / "coco/3.png"
    assert mix.images["vg:3"] == tmp_path / "vg/3.png"
    assert (mix.labels, mix.stores) == (("a", "b"), ("coco", "vg"))
    assert mix.files == (tmp_path / "coco/train.csv", tmp_path / "vg/train.csv")


def test_draws_are_a_pure_function_of_seed_and_epoch(mix: Mix) -> None:
    def epoch(number: int, seed: int = 0) -> np.ndarray:
        return np.concatenate(Plan(len(mix), batch_size=3, seed=seed, draws=mix.draws).epoch(number))

    assert mix.draws == [(10, 5), (4, 10)]
    counts = np.bincount(epoch(0), minlength=14)
    assert counts[:10].sum() == 5
    assert counts[:10].max() == 1
    assert sorted(counts[10:]) == [2, 2, 3, 3]
    assert np.array_equal(epoch(1), epoch(1))
    assert not np.array_equal(np.sort(epoch(0)), np.sort(epoch(1)))
    assert not np.array_equal(epoch(0), epoch(0, seed=1))


def test_what_cannot_be_mixed_is_refused(mix: Mix, tmp_path: Path) -> None:
    one = mix.members["vg"]
    for settings in (
        {"members": {}},
        {"members": {"a:b": one}},
        {"members": {"a": one}, "weights": {"b": 1}},
        {"members": {"a": one}, "weights": {"a": 0}},
        {"members": {"a": one}, "weights": {"a": float("nan")}},
        {"members": {"a": one}, "stores": {"a": "x:y"}},
    ):
        with pytest.raises(ConfigError):
            Mix(**settings)
    with pytest.raises(ConfigError):
        mix.write(Predictions(ids=()), tmp_path / "out.csv")
