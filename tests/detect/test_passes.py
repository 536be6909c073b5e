"""Which passes a preset stands for, and which weights they take."""

from pathlib import Path

import pytest

from diptych.detect import ExtractSettings, passes
from diptych.errors import ConfigError


def test_the_preset_of_vilio_has_two_passes_with_files_of_their_own():
    found = passes(preset="vilio", weights={"vgattr": "a.pkl", "": "b.pkl"}, attributes=("red",))
    assert [(one.detector, one.weights, one.attributes) for one in found] == [
        ("vgattr", Path("a.pkl"), ("red",)),
        ("vg", Path("b.pkl"), ()),
    ]
    assert sum(len(one.stores()) for one in found) == 6


def test_one_detector_is_one_pass():
    assert passes("tiny", ["4", "9"]) == [ExtractSettings(detector="tiny", rules=("4", "9"))]
    assert passes("vgattr", weights="random", batch=2) == [ExtractSettings(batch=2)]
    assert passes("vgattr", weights="a.pkl")[0].weights == Path("a.pkl")


@pytest.mark.parametrize(
    "settings", [{}, {"weights": {"vg": "a.pkl"}}, {"preset": "villio"}, {"mode": "caffe", "batch": 0}]
)
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError):
        passes(**{"weights": {"vgattr": "random"} if "batch" in settings else None, **settings})
