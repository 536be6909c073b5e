import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.nn.modalities import require, require_both
from diptych.types import Inputs, PaddedRegions, PaddedText

TEXT = PaddedText(
    ids=torch.ones(2, 3).long(), mask=torch.ones(2, 3).bool(), segments=torch.zeros(2, 3).long()
)
REGIONS = PaddedRegions(
    features=torch.zeros(2, 4, 6),
    boxes=torch.zeros(2, 4, 4),
    mask=torch.ones(2, 4).bool(),
    image_index=torch.zeros(2, 4).long(),
    sizes=torch.ones(2, 2),
)


class Reader(nn.Module):
    pass


def test_what_is_there_comes_back():
    assert require(Reader(), "text", TEXT) is TEXT
    assert require_both(Reader(), Inputs(text=TEXT, regions=REGIONS), feature_dim=6) == (TEXT, REGIONS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": TEXT}, "Reader .*regions"),
        ({"regions": REGIONS}, "Reader .*text"),
        ({"text": TEXT, "regions": REGIONS}, r" 5; .* 6\. .*model\.feature_dim"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(given, message):
    with pytest.raises(ConfigError, match=message):
        require_both(Reader(), Inputs(**given), feature_dim=5)
