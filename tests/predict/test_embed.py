"""Vectors of examples, as a store or a memory keeps them."""

import numpy as np
import pytest
import torch

from diptych.bundle import load_bundle
from diptych.datasets import HatefulMemes
from diptych.errors import ConfigError
from diptych.predict import Predictor, case_part, embed_dataset, own_parts
from diptych.predictions import Predictions


def test_vectors_have_the_order_of_the_split_whatever_the_batch(pixel_run, memes):
    predictor = Predictor(load_bundle(pixel_run))
    split = HatefulMemes(memes, "dev_seen")
    assert own_parts(predictor) == ("pooled",) == (case_part(predictor),)
    done = []
    one = embed_dataset(predictor, split, ["pooled"], batch_size=3, progress=lambda n, all: done.append(n))
    many = embed_dataset(predictor, split, ["pooled"], batch_size=64)
    assert one["pooled"].shape == (len(split), predictor.model.dim)
    np.testing.assert_allclose(one["pooled"], many["pooled"], atol=1e-5)
    assert done == [*range(3, len(split), 3), len(split)]
    # The task's head decides on these vectors as it does on the examples themselves.
    with torch.inference_mode():
        logits = predictor.task.head(torch.tensor(many["pooled"]).to(predictor.device)).double().cpu()
    expected: Predictions = predictor.predict_dataset(split)
    np.testing.assert_allclose(logits.softmax(-1).numpy(), expected.scores, atol=1e-5)


def test_a_part_that_the_model_lacks_is_named(pixel_run, memes):
    predictor = Predictor(load_bundle(pixel_run))
    with pytest.raises(ConfigError, match="joint_image"):
        embed_dataset(predictor, HatefulMemes(memes, "dev_seen"), ["joint_image"])
