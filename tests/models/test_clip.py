"""What only dual encoders do."""

import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import Clip, clip_tiny, siglip_tiny
from diptych.nn import Sizes
from diptych.types import Inputs, PaddedText

JOINT = frozenset({"joint_image", "joint_text"})


def given(*, rows=3, tokens=6, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 99, (rows, tokens), generator=generator)
    text = PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids))
    return Inputs(text=text, pixels=torch.randn(rows, 3, size, size, generator=generator))


def build(builder, **options):
    torch.manual_seed(0)
    return builder(**options).eval()


@pytest.mark.parametrize("builder", [clip_tiny, siglip_tiny])
def test_joint_vectors_have_length_one_and_the_pooled_one_is_made_of_them(builder):
    model, inputs = build(builder), given()
    encoding = model(inputs)
    image, text = encoding.joint_image, encoding.joint_text
    torch.testing.assert_close(image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(image, F.normalize(model.encode_image(inputs.pixels), dim=-1))
    torch.testing.assert_close(text, F.normalize(model.encode_text(inputs.text), dim=-1))
    for fusion, parts in {"concat": [image, text], "align": [image * text]}.items():
        model.set_widths(48, 48, fusion)
        torch.testing.assert_close(model(inputs).pooled, torch.cat(parts, 1))
        assert model.dim == model(inputs).pooled.shape[1]


@pytest.mark.parametrize("builder", [clip_tiny, siglip_tiny])
@pytest.mark.parametrize("field", sorted(JOINT))
def test_a_tower_runs_only_if_it_is_read(builder, field):
    model, inputs = build(builder), given()
    alone = Inputs(pixels=inputs.pixels) if field == "joint_image" else Inputs(text=inputs.text)
    encoding = model(alone, frozenset({field}))
    torch.testing.assert_close(getattr(encoding, field), getattr(model(inputs), field))
    with pytest.raises(ConfigError, match=r"reads (pixels|text), but"):
        model(alone, JOINT)


def test_the_last_token_is_read_wherever_the_largest_id_stands():
    model, inputs = build(clip_tiny), given()
    ids = inputs.text.ids.clone()
    ids[:, 2] = 999  # as if somebody had written the end token into the text
    text = PaddedText(ids=ids, mask=inputs.text.mask, segments=inputs.text.segments)
    longer = ids.clone()
    longer[:, 5] = 7
    changed = PaddedText(ids=longer, mask=inputs.text.mask, segments=inputs.text.segments)
    assert not torch.allclose(model.encode_text(text), model.encode_text(changed))


def test_text_of_clip_is_cut_to_the_batch_without_a_change():
    model, inputs = build(clip_tiny), given()
    wide = F.pad(inputs.text.ids, (0, 60), value=9)
    mask = F.pad(inputs.text.mask, (0, 60))
    padded = PaddedText(ids=wide, mask=mask, segments=torch.zeros_like(wide))
    torch.testing.assert_close(model.encode_text(padded), model.encode_text(inputs.text))


def test_siglip_fills_every_text_up():
    model, inputs = build(siglip_tiny), given()
    full = F.pad(inputs.text.ids, (0, 26), value=0)
    whole = PaddedText(ids=full, mask=torch.ones_like(full).bool(), segments=torch.zeros_like(full))
    torch.testing.assert_close(model.encode_text(whole), model.encode_text(inputs.text))


def test_a_text_of_78_tokens_is_refused():
    with pytest.raises(ConfigError, match=r"78 tokens exceeds the 77 positions .* processor\.max_tokens"):
        build(clip_tiny)(given(tokens=78))


def test_pictures_smaller_than_a_patch_are_refused():
    with pytest.raises(ConfigError, match=r"5 x 5 pixels have no patch of 6"):
        build(clip_tiny)(given(size=5))


def test_a_picture_need_not_have_the_size_of_training():
    model = build(clip_tiny)
    wide = torch.randn(2, 3, 30, 48)
    assert model.encode_image(wide).shape == (2, 48)
    uneven = model.encode_image(torch.randn(2, 3, 27, 24, generator=torch.Generator().manual_seed(0)))
    even = torch.randn(2, 3, 27, 24, generator=torch.Generator().manual_seed(0))[:, :, :24]
    torch.testing.assert_close(uneven, model.encode_image(even))  # what is no whole patch is cut off


def test_frozen_towers_get_no_gradient():
    model = build(clip_tiny, frozen=["image", "text"])
    assert [name for name, one in model.named_parameters() if one.requires_grad] == ["logit_scale"]
    model = build(clip_tiny, frozen=["text"])
    model(given()).pooled.sum().backward()
    assert model.text.words.weight.grad is None
    assert model.image.patches.weight.grad is not None


def test_settings_that_do_not_exist_are_refused():
    for options, message in (
        ({"fusion": "sum"}, "'sum'"),
        ({"frozen": ["head"]}, "'head'"),
        ({"activation": "quickgelu"}, "quick_gelu"),
        ({"image_size": 4}, "patch of 6"),
        ({"text": Sizes(dim=48, heads=5, hidden=8, layers=1)}, "heads"),
    ):
        with pytest.raises(ConfigError, match=message):
            clip_tiny(**options)


def test_the_tables_take_any_number_of_layers():
    sizes = Sizes(dim=8, heads=2, hidden=8, layers=1)
    model = Clip(vocab_size=99, text=sizes, vision=sizes, joint_dim=4, image_size=(12, 24), patch=6)
    assert model.image.positions.shape == (9, 8)
    assert model(given(size=12)).joint_image.shape == (3, 4)
