"""Answers of other programs: every form, their origin, and what is refused with its line."""

import json
import math

import numpy as np
import pytest
from scipy.special import expit, logit

from diptych.ensemble import read_foreign
from diptych.errors import ConfigError, FormatError

IDS = ("00007", "00008", "00009", "00010")
MODERATION = {"results": [{"flagged": True, "category_scores": {"hate": 0.7, "violence": 0.9}}]}


def read(tmp_path, *records, categories=()):
    path = tmp_path / "vlm.jsonl"
    lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
    path.write_text("\ufeff" + "\n\n".join(lines) + "\n")
    return read_foreign(path, IDS, name="vlm", classes=("benign", "hateful"), categories=categories)


@pytest.mark.parametrize(
    ("record", "expected", "form"),
    [
        ({"p": 0.83}, 0.83, "probability"),
        ({"p": 1}, 1 - 1e-15, "probability"),
        ({"logprobs": {"Yes": -0.2, "No": -1.7}}, expit(1.5), "log-probabilities"),
        (
            {"logprobs": [{"token": one, "logprob": -1} for one in (" yes", "YES")]},
            expit(math.log(2) - 1 - math.log(1 - 2 / math.e)), "log-probabilities",
        ),
        # No is not listed, so it is at most as probable as the last of the list, and as what is left.
        ({"logprobs": {"yes": -0.2, "maybe": -3.0}}, expit(2.8), "log-probabilities"),
        ({"logprobs": {"yes": -0.2, "well": -1.8, "no": -9}}, expit(8.8), "log-probabilities"),
        ({"verdict": "unsafe", "confidence": 0.9}, 0.9, "verdict"),
        ({"verdict": " Benign ", "confidence": 0.9}, 0.1, "verdict"),
        ({"verdict": True, "confidence": 0.8}, 0.8, "verdict"),
        ({"verdict": 0, "confidence": 0.8}, 0.2, "verdict"),
        (MODERATION, 0.9, "moderation"),
    ],
)  # fmt: skip
def test_a_form_is_recognized_by_its_content(record, expected, form, tmp_path):
    found = read(tmp_path, {"id": 7, **record})
    assert found.form == form
    assert found.predictions.ids == ("00007",)
    assert found.predictions.column("hateful")[0] == pytest.approx(expected, abs=1e-12)
    assert found.predictions.answers == ("hateful" if expected >= 0.5 else "benign",)
    assert found.lacking == IDS[1:]
    assert found.bounded == (form == "log-probabilities" and '"no"' not in json.dumps(record).lower())


def test_batch_files_and_categories_of_moderation(tmp_path):
    line = {
        "id": "batch_1",
        "custom_id": "8",
        "response": {"body": {"id": "modr-1", "model": "omni", **MODERATION}},
    }
    found = read(tmp_path, line, categories=("hate",))
    assert found.predictions.ids == ("00008",)
    assert found.predictions.column("hateful")[0] == pytest.approx(0.7)
    assert found.predictions.meta["imported"]["models"] == ["omni"]
    with pytest.raises(FormatError, match=r":1: .*'hat'.*'hate'"):
        read(tmp_path, line, categories=("hat",))
    with pytest.raises(FormatError, match=r":1: .*'8'.*overloaded"):
        read(tmp_path, {"custom_id": "8", "response": None, "error": "overloaded"})
    with pytest.raises(ConfigError, match=r":1: .*categories"):
        read(tmp_path, {"id": 7, "p": 0.5}, categories=("hate",))


def test_several_answers_become_their_mean_log_odds_with_a_spread(tmp_path):
    values = {"00009": (0.2, 0.9, 0.6), "00007": (0.3,)}
    found = read(tmp_path, *({"id": key, "p": p} for key, ps in values.items() for p in ps))
    assert found.predictions.ids == ("00007", "00009"), "the order of the split"
    assert logit(found.predictions.column("hateful")) == pytest.approx(
        [logit(0.3), np.mean(logit(values["00009"]))]
    )
    assert found.predictions.meta["spread"] == {
        "00009": pytest.approx(np.std(logit(values["00009"]), ddof=1))
    }
    assert found.rows == 4


def test_the_origin_is_recorded_and_identifies_the_model(tmp_path):
    about = {"model": "guard-3", "prompt": "Is it hateful?", "price": 0.002, "seconds": 0.5}
    found = read(tmp_path, {"id": 7, "p": 0.1, **about}, {"id": 8, "p": 0.2, **about}).predictions
    origin = found.meta["imported"]
    assert (origin["price"], origin["seconds"]) == (pytest.approx(0.004), pytest.approx(1.0))
    assert origin["models"] == ["guard-3"]
    [prompt] = origin["prompts"]
    assert len(prompt) == 64
    assert "hateful?" not in json.dumps(dict(found.meta))
    other = read(tmp_path, {"id": 9, "p": 0.7, **about}).predictions
    assert other.model == found.model
    assert other.meta["imported"]["checksum"] != origin["checksum"]
    assert read(tmp_path, {"id": 9, "p": 0.7, **about, "prompt": "Hate?"}).predictions.model != found.model
    found.save(tmp_path / "a.npz")
    assert type(found).load(tmp_path / "a.npz").meta["imported"] == origin
    each = [{"id": 7, "p": 0.5, "prompt": f"Is {number} hateful?"} for number in range(33)]
    assert not read(tmp_path, *each).recorded


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": 9, "p": 1.2}, r"1\.2"),
        ('{"id": 9, "p": NaN}', "nan"),
        ('{"id": 9, "p": Infinity}', "inf"),
        ({"id": 9, "p": "0.5"}, "'0.5'"),
        ({"id": 9, "p": True}, "True"),
        ({"id": 77, "p": 0.5}, "'77'"),
        ({"id": None, "p": 0.5}, "id is None"),
        ({"p": 0.5}, "id is None"),
        ({"id": 9, "verdict": "safe", "confidence": 0.9}, "line 1 is a probability"),
        ({"id": 9, "p": 0.5, "verdict": "safe"}, "several"),
        ({"id": 9, "score": 0.5}, "none"),
        ({"id": 9, "p": 0.5, "price": -1}, "price is -1"),
        ({"id": 9, "p": 0.5, "seconds": 2.0}, "seconds"),
        ({"id": 9, "p": 0.5, "prompt": 3}, "prompt is 3"),
        ("[1]", "[1]"),
        ('{"id": 9', "cannot be read"),
        ('{"id": 9, "id": 8, "p": 0.5}', "twice"),
        ('{"id": 9, "p": 0.5, "x": "' + "a" * (1 << 20) + '"}', "bytes"),
    ],
)
def test_a_wrong_line_is_named(line, said, tmp_path):
    with pytest.raises(FormatError) as error:
        read(tmp_path, {"id": 7, "p": 0.5}, line)
    # A blank line is between the two. A field that only some lines have is missing from the first.
    assert f"vlm.jsonl:{1 if said == 'seconds' else 3}: " in str(error.value)
    assert said.replace("\\", "") in str(error.value)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"logprobs": {"maybe": -0.1, "well": -2}}, "maybe"),
        ({"logprobs": {"yes": -0.1}}, "yes"),
        ({"logprobs": {"yes": 0.3, "no": -1}}, "0.3"),
        ({"logprobs": [{"token": 3}]}, "logprobs"),
        ({"logprobs": 0.5}, "0.5"),
        ({"verdict": "unsave", "confidence": 1}, "'unsafe'"),
        ({"verdict": "safe"}, "confidence is None"),
        ({"verdict": "safe", "confidence": 90}, "90"),
        ({"verdict": ["safe"], "confidence": 1}, "['safe']"),
        ({"results": []}, "results"),
        ({"results": [{"category_scores": {"hate": 3}}]}, "score of hate is 3"),
    ],
)
def test_answers_that_mean_nothing_are_refused(record, said, tmp_path):
    with pytest.raises(FormatError) as error:
        read(tmp_path, {"id": 7, **record})
    assert "vlm.jsonl:1: " in str(error.value)
    assert said in str(error.value)


def test_a_file_without_answers_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"vlm\.jsonl"):
        read(tmp_path, "")
