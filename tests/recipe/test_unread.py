from pathlib import Path
from typing import Any

import pytest

from diptych.data import Processor
from diptych.errors import ConfigError
from diptych.recipe.unread import require_read

PIXELS = Processor(image_size=24)
REGIONS = Processor(regions=True)


def config(**changed: Any) -> dict[str, Any]:
    """The settings that every run has, as they are by default."""
    usual = {"root": "memes", "features": "memes/features", "more_features": None, "region_merge": "vilio"}
    return {**usual, "vocabulary": "auto", "fasttext": {"path": "auto", "dim": 150}, "task": {}, **changed}


@pytest.mark.parametrize(
    ("changed", "name", "place"),
    [
        ({"features": "store"}, "features", "store"),
        ({"features": {"a": "store"}}, "features", "store"),
        ({"more_features": "store"}, "more_features", "store"),
        ({"vocabulary": "words.txt"}, "vocabulary", "words.txt"),
        ({"fasttext": {"path": "words.bin"}}, "fasttext.path", "words.bin"),
        ({"region_merge": "fair"}, "region_merge", "fair"),
        ({"task": {"soft_share": 0.5}}, "task.soft_share", "0.5"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused_by_its_name(changed, name, place):
    with pytest.raises(ConfigError) as caught:
        require_read(config(**changed), PIXELS)
    assert str(caught.value).startswith(f"{name} is ")
    assert place in str(caught.value)


def test_defaults_and_what_is_read_are_not():
    require_read(config(), PIXELS)
    require_read(config(features=None), PIXELS)
    require_read(config(features=f"{Path('memes') / 'features'}/"), PIXELS)
    require_read(config(features="store", more_features="other", region_merge="fair"), REGIONS)
    require_read(config(task={"soft_share": 0.5, "soft_targets": "soft.npz"}), PIXELS)
