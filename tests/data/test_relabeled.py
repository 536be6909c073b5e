"""Other targets than those of the data set."""

import json

import numpy as np
import pytest

from diptych.data.relabeled import Relabeled
from diptych.datasets import HatefulMemes
from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.recipe.settle import with_class_weights

LABELS = ("benign", "hateful")


def predictions(ids, classes=LABELS):
    scores = np.tile([0.25, 0.75], (len(ids), 1))
    return Predictions(ids=tuple(ids), scores=scores, answers=("hateful",) * len(ids), classes=classes)


def test_soft_targets_mix_the_label_with_the_probabilities(memes, tmp_path):
    train = HatefulMemes(memes, "train")
    file = tmp_path / "soft.npz"
    soft = Relabeled.soft(train, predictions(train.ids[::-1]), LABELS, share=0.5, where=file)
    for index in range(len(train)):
        label = train[index].target
        expected = {"benign": 0.125, "hateful": 0.375}
        expected[label] += 0.5
        assert soft[index].target == pytest.approx(expected)
        assert soft[index].pairs == train[index].pairs
    assert soft.files == (*train.files, file)
    alone = Relabeled.soft(train, predictions(train.ids), LABELS, share=1.0, where=file)
    assert alone[0].target == {"benign": 0.25, "hateful": 0.75}


def test_a_meme_without_a_label_has_the_probabilities_alone(spoiled, tmp_path):
    path = spoiled / "train.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(first)
    label = record.pop("label")
    path.write_text("\n".join([json.dumps(record), *rest]), encoding="utf-8")
    train = HatefulMemes(spoiled, "train")
    soft = Relabeled.soft(train, predictions(train.ids), LABELS, share=0.5, where=tmp_path / "soft.npz")
    assert label in (0, 1)
    assert train[0].target is None
    assert soft[0].target == {"benign": 0.25, "hateful": 0.75}
    assert soft[1].target[train[1].target] > 0.5
    # What is learned from all targets sees them, too.
    weights = with_class_weights({"class_weights": "balanced", "labels": list(LABELS)}, soft)["class_weights"]
    assert np.dot(weights, [sum(t.target[name] > 0.5 for t in soft) for name in LABELS]) == len(train)


def test_a_file_that_does_not_fit_is_refused(memes, tmp_path):
    train = HatefulMemes(memes, "train")
    for given, share, match in (
        (predictions(train.ids[1:]), 1.0, f"1 of {len(train)}"),
        (predictions(train.ids, ("no", "yes")), 1.0, "no"),
        (predictions(train.ids), 0.0, "soft_share"),
    ):
        with pytest.raises(ConfigError, match=match):
            Relabeled.soft(train, given, LABELS, share=share, where=tmp_path / "soft.npz")
