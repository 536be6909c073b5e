import json

import pytest

from diptych.detect.extractor import ExtractSettings
from diptych.detect.progress import ExtractionProgress, ShardResult
from diptych.errors import ConfigError, FormatError
from diptych.features import Fault

FAULT = {"id": 5, "reason": "x"}
ODD = ["", "{", "[]", "5", "{}"] + [
    json.dumps({"pictures": 9, "bad": []} | change)
    for change in ({"pictures": "9"}, {"bad": [5]}, {"bad": [FAULT]}, {"bad": None}, {"more": 1})
]


@pytest.fixture
def state(tmp_path):
    return ExtractionProgress(tmp_path, ExtractSettings(detector="grid", backbone="resnet_tiny", size=32))


def test_records_come_back(state):
    plan = state.plan([], 9)
    with state.opened(plan, resume=False, overwrite=False):
        done = ShardResult(3, 9, (Fault(0, "a", "cut off"),))
        state.record(done)
        assert state.recorded(3) == done
        assert state.recorded(4) is None


@pytest.mark.parametrize("text", ODD)
def test_odd_records_are_named(state, text):
    with state.opened(state.plan([], 9), resume=False, overwrite=False):
        (state.folder / "part-00003.json").write_text(text)
        with pytest.raises(FormatError, match=r"part-00003\.json: "):
            state.recorded(3)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "{}", '{"size": []}'])
def test_an_odd_plan_is_named(state, text):
    plan = state.plan([], 9)
    with state.opened(plan, resume=False, overwrite=False):
        (state.folder / "plan.json").write_text(text)
    error = ConfigError if text[1:] and text.startswith("{") and text != "{" else FormatError
    with (
        pytest.raises(error, match=r"overwrite=true"),
        state.opened(plan, resume=True, overwrite=False),
    ):
        pass


@pytest.mark.parametrize(
    "text", ["", "[]", '{"plan": {}}', '{"plan": [], "images": 1, "regions": 1, "fewer": 0}']
)
def test_an_odd_report_is_named(state, text):
    for store in state.stores:
        store.mkdir()
        (store / "index.arrow").touch()
        store.with_name(f"{store.name}.json").write_text(text)
    with pytest.raises(FormatError, match=r"grid\.json: .*overwrite=true"):
        state.finished(state.plan([], 9))


def test_a_report_of_another_plan_is_none_of_ours(state):
    values = {"plan": {"shard": 5}, "images": 1, "regions": 1, "fewer": 0, "bad": []}
    for store in state.stores:
        store.mkdir()
        (store / "index.arrow").touch()
        store.with_name(f"{store.name}.json").write_text(json.dumps(values))
    assert state.finished(state.plan([], 9)) is None
