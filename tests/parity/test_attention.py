"""Attention maps equal those of the originals, recorded for Transformer-MM-Explainability."""

import os

import pytest
import torch
from tests.parity import test_lxmert, test_visualbert

from diptych.nn import attention_places, capture_attention

if "DIPTYCH_GOLDENS" in os.environ:  # the repository's selection has none of theirs

    def test_maps_of_two_streams_equal_the_original(golden):
        golden = golden("explain-lxmert-vqa")
        model, _, _ = test_lxmert.build(golden)
        inputs = test_lxmert.unpack(golden.inputs, leave_out=("index",))
        check(golden, model, inputs, LXMERT)

    @pytest.mark.parametrize("name", ["explain-visualbert-vqa", "explain-visualbert-hm"])
    def test_maps_of_one_stream_equal_the_original(golden, name):
        golden = golden(name)
        model, _, _ = test_visualbert.build(golden)
        check(golden, model, test_visualbert.unpack(golden.inputs), {"layer.": "encoder.layers."})


LXMERT = {  # parts of names, in the order of their replacement
    "x_layers.": "cross_layers.",
    "r_layers.": "region_encoder.layers.",
    ".lang_self_att.self": ".text.attention",
    ".visn_self_att.self": ".regions.attention",
    ".visual_attention_copy.att": ".attention.regions",
    ".visual_attention.att": ".attention.text",
    ".attention.self": ".attention",
    "layer.": "text_encoder.layers.",
}


def check(golden, model, inputs, names):
    """Compare every map that the golden holds where its queries are real; it holds zeros elsewhere."""
    with capture_attention(model) as maps:
        model(inputs)
    plan = attention_places(model)
    real = {"text": inputs.text.mask, "regions": inputs.regions.mask}
    real["both"] = torch.cat([*real.values()], 1)
    theirs = [key for key in golden.outputs if key.startswith("map.")]
    assert theirs
    for key in theirs:
        name = key.removeprefix("map.")
        for old, new in names.items():
            name = name.replace(old, new)
        name = name if name in maps else f"{name}.attention"
        queries = real[plan.sides_of(name)[0]]
        golden.check(key, maps[name] * queries[:, None, :, None])
