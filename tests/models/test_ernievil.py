import torch

from diptych.models import ernievil_base, ernievil_large, ernievil_tiny
from diptych.nn import capture_attention


def build(**options):
    torch.manual_seed(0)
    return ernievil_tiny(**options).eval()


def test_pooled_is_the_product_of_the_first_of_both_streams(rows):
    model, inputs, streams = build(), rows(), []
    model.encoder.register_forward_hook(lambda module, given, result: streams.extend(result))
    encoding = model(inputs)
    text, vision = streams
    assert vision.shape[1] == inputs.regions.mask.shape[1] + 1
    torch.testing.assert_close(encoding.regions, vision[:, 1:])
    pooled = model.pool.text(text[:, 0]).relu() * model.pool.vision(vision[:, 0]).relu()
    torch.testing.assert_close(encoding.pooled, pooled)


def test_every_norm_has_the_epsilon_of_paddle():
    norms = [part for part in build().modules() if isinstance(part, torch.nn.LayerNorm)]
    assert len(norms) == 2 + 2 * 2 + 2 * 2 + 2 * 4
    assert {norm.eps for norm in norms} == {1e-5}


def test_the_first_word_is_a_word_like_others(rows):
    """The table of the original has no row that is never trained."""
    model, inputs = build(), rows()
    inputs.text.ids[:, 1] = 0
    model(inputs).pooled.sum().backward()
    assert model.text.words.weight.grad[0].any()
    assert model.text.segments.num_embeddings == 4


def test_one_layer_of_each_stream_follows_the_last_meeting():
    with torch.device("meta"):
        models = [ernievil_base(), ernievil_large(), ernievil_tiny()]
    for model in models:
        text, vision = model.encoder.ends[-2]
        assert len(model.encoder.text_layers) == text + 1
        assert len(model.encoder.vision_layers) == vision + 1


def test_attention_is_captured_by_name(rows):
    model = build()
    with capture_attention(model) as maps:
        model(rows())
    assert maps["encoder.meetings.0.vision_attention"].shape == (3, 4, 5, 5)
    assert len(maps) == 2 + 2 + 2 * 2


def test_layers_of_the_base_model_are_counted_as_in_the_original():
    """18 layers above each other: 6 of the text alone, then meetings and vision layers by turns with it."""
    with torch.device("meta"):
        powers = ernievil_base().layer_powers()
    layers = {"text_layers.0": 18, "text_layers.5": 13, "text_layers.6": 11, "text_layers.11": 1}
    layers |= {"meetings.0": 12, "vision_layers.0": 11, "meetings.5": 2, "vision_layers.5": 1}
    assert {name: powers[f"encoder.{name}."] for name in layers} == layers
    assert (powers["text."], powers["regions."], powers["text.norm"], powers["regions.norm"]) == (
        19,
        13,
        0,
        0,
    )
