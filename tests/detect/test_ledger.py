import json

import pytest

from diptych.detect.extractor import ExtractSettings
from diptych.detect.ledger import Done, Ledger
from diptych.errors import ConfigError, FormatError
from diptych.features import Fault

FAULT = {"id": 5, "reason": "x"}
ODD = ["", "{", "[]", "5", "{}"] + [
    json.dumps({"pictures": 9, "bad": []} | change)
    for change in ({"pictures": "9"}, {"bad": [5]}, {"bad": [FAULT]}, {"bad": None}, {"more": 1})
]


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path, ExtractSettings(detector="grid", backbone="resnet_tiny", size=32))


def test_records_come_back(ledger):
    plan = ledger.plan([], 9)
    with ledger.opened(plan, resume=False, overwrite=False):
        done = Done(3, 9, (Fault(0, "a", "cut off"),))
        ledger.record(done)
        assert ledger.recorded(3) == done
        assert ledger.recorded(4) is None


@pytest.mark.parametrize("text", ODD)
def test_odd_records_are_named(ledger, text):
    with ledger.opened(ledger.plan([], 9), resume=False, overwrite=False):
        (ledger.folder / "part-00003.json").write_text(text)
        with pytest.raises(FormatError, match=r"part-00003\.json: .*Remove it"):
            ledger.recorded(3)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "{}", '{"size": []}'])
def test_an_odd_plan_is_named(ledger, text):
    plan = ledger.plan([], 9)
    with ledger.opened(plan, resume=False, overwrite=False):
        (ledger.folder / "plan.json").write_text(text)
    error = ConfigError if text[1:] and text.startswith("{") and text != "{" else FormatError
    with (
        pytest.raises(error, match="overwrite=true to begin again"),
        ledger.opened(plan, resume=True, overwrite=False),
    ):
        pass


@pytest.mark.parametrize(
    "text", ["", "[]", '{"plan": {}}', '{"plan": [], "images": 1, "regions": 1, "fewer": 0}']
)
def test_an_odd_report_is_named(ledger, text):
    for store in ledger.stores:
        store.mkdir()
        (store / "index.arrow").touch()
        store.with_name(f"{store.name}.json").write_text(text)
    with pytest.raises(FormatError, match=r"grid\.json: .*begin again"):
        ledger.finished(ledger.plan([], 9))


def test_a_report_of_another_plan_is_none_of_ours(ledger):
    values = {"plan": {"shard": 5}, "images": 1, "regions": 1, "fewer": 0, "bad": []}
    for store in ledger.stores:
        store.mkdir()
        (store / "index.arrow").touch()
        store.with_name(f"{store.name}.json").write_text(json.dumps(values))
    assert ledger.finished(ledger.plan([], 9)) is None
