"""`weights.model` finds the reader of every family."""

import pytest
import torch

from diptych import models
from diptych.errors import CheckpointMismatch
from diptych.recipe.run import LOADERS, _load_weights


@pytest.mark.parametrize("family", LOADERS, ids=lambda one: one.__name__)
def test_the_reader_of_a_family_sees_the_file(family, tmp_path):
    model = getattr(models, f"{family.__name__.lower()}_tiny")()
    assert type(model) is family
    torch.save({"encoder.strange": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match=r"encoder\.strange"):
        _load_weights(model, {"model": str(tmp_path / "other.pt"), "text": None, "image": None}, None)
