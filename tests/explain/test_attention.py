import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.explain.toy import TEXT, found, sources_of

from diptych.data import Sources
from diptych.errors import ConfigError
from diptych.explain import explain_attention, grouped, pair_maps
from diptych.nn import AttentionPlaces, capture_attention
from diptych.predict import Listed, Predictor
from diptych.tasks import Match
from diptych.types import Inputs

FAMILIES = ["uniter", "oscar", "visualbert", "vlbert", "lxmert", "vilbert", "devlbert", "ernievil"]
ADDED = {  # names before the regions, and after them
    "vlbert": (["whole image"], ["[END]"]),
    "vilbert": (["whole image"], []),
    "devlbert": (["whole image"], []),
    "ernievil": (["whole image"], []),
}


def explain(predictor, picture, regions, text=TEXT):
    example = predictor.example("7", keys=("street",), text=text)
    return explain_attention(predictor, example, sources_of(predictor, street=(picture, regions)))


def assert_whole(pair):
    """Rows sum to 1 where there is something to look at, and every place has a name."""
    for layer in pair.layers:
        assert layer.weights.shape[1:] == (len(layer.queries), len(layer.keys))
        sums = np.full(layer.weights.shape[:2], float(bool(layer.keys)))
        np.testing.assert_allclose(layer.weights.sum(2), sums, atol=1e-5)
    assert all(place.name or place.number for place in pair.places)


def test_a_yes_or_no_is_answered_by_its_name(predictor_of, picture):
    bundle = predictor_of("uniter_tiny").bundle
    predictor = Predictor(replace(bundle, task=Match(bundle.model).eval()), device="cpu")
    assert re.fullmatch(r"matches \(0\.\d\d\)", explain(predictor, picture, found(3)).answer)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_position_of_every_family_has_a_name(predictor_of, picture, family):
    maps = explain(predictor_of(f"{family}_tiny"), picture, found(3))
    (pair,) = maps.pairs
    assert_whole(pair)
    assert maps.answer.startswith(("benign (0.", "hateful (0."))
    text = [place for place in pair.places if place.side == "text"]
    assert (text[0].name, text[-1].name) == ("[CLS]", "[SEP]")
    spoken = "".join(place.name if place.joins else f" {place.name}" for place in text[1:-1])
    assert spoken.strip() == TEXT
    before, after = ADDED.get(family, ([], []))
    regions = [place for place in pair.places if place.side == "regions"]
    assert [place.name for place in regions] == [*before, "dog", "cat", "dog", *after]
    assert [place.number for place in regions if not place.special] == [1, 2, 3]
    assert next(place.box for place in regions if place.number == 1) == (0, 0, 0.5, 1)
    assert pair.images == (picture,)


def test_two_streams_have_maps_in_both_directions(predictor_of, picture):
    for family in ("lxmert", "vilbert"):
        (pair,) = explain(predictor_of(f"{family}_tiny"), picture, found(3)).pairs
        assert {layer.sides for layer in pair.layers} == {
            (one, other) for one in ("text", "regions") for other in ("text", "regions")
        }
        first = next(layer for layer in pair.layers if layer.sides == ("text", "regions"))
        assert first.title == "text \N{RIGHTWARDS ARROW} picture 1"
        assert {pair.places[key].side for key in first.keys} == {"regions"}


def test_the_maps_are_those_of_the_model(predictor_of, picture):
    predictor = predictor_of("uniter_tiny")
    example = predictor.example("7", keys=("street",), text=TEXT)
    sources = sources_of(predictor, street=(picture, found(3)))
    (pair,) = explain_attention(predictor, example, sources).pairs
    with capture_attention(predictor.model) as maps, torch.inference_mode():
        next(predictor.predict_batches(Listed([example]), sources, [[0]]))
    assert [layer.name for layer in pair.layers] == [*maps]
    for layer, weights in zip(pair.layers, maps.values(), strict=True):
        np.testing.assert_allclose(layer.weights, weights[0].numpy(), atol=1e-6)


def test_a_task_token_has_a_place(predictor_of, picture):
    (pair,) = explain(predictor_of("vilbert_tiny", tasks=2, task=1), picture, found(2)).pairs
    assert [(place.name, place.special) for place in pair.places[:2]] == [("[CLS]", True), ("task", True)]
    assert_whole(pair)


def test_object_names_are_named_by_the_words_of_the_detector(predictor_of, picture):
    (pair,) = explain(predictor_of("oscar_tiny", processor={"tags": True}), picture, found(1)).pairs
    text = [place.name for place in pair.places if place.side == "text" and not place.special]
    assert "".join(text).endswith("dog,hound")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_without_regions_gives_what_there_is(predictor_of, picture, family):
    (pair,) = explain(predictor_of(f"{family}_tiny"), picture, found(0)).pairs
    assert_whole(pair)
    assert not any(place.number for place in pair.places)


def test_a_model_of_text_alone(predictor_of):
    predictor = predictor_of("text_bert_tiny")
    (pair,) = explain_attention(predictor, predictor.example("7", keys=(), text=TEXT), Sources()).pairs
    assert {layer.sides for layer in pair.layers} == {("text", "text")}
    assert pair.images == ()
    assert_whole(pair)


def test_both_pictures_of_an_example_have_maps(predictor_of, picture):
    predictor = predictor_of("uniter_tiny", pairs=2)
    example = predictor.example("7", keys=("left", "right"), text=TEXT)
    sources = sources_of(predictor, left=(picture, found(2)), right=(picture, found(3, seed=1)))
    left, right = explain_attention(predictor, example, sources).pairs
    assert [max(place.number for place in pair.places) for pair in (left, right)] == [2, 3]
    predictor = predictor_of("uniter_tiny", segments=3)
    predictor.bundle.provenance["data"] = {"together": True}
    (both,) = explain_attention(
        predictor, predictor.example("7", keys=("left", "right"), text=TEXT), sources
    ).pairs
    shown = [(place.number, place.picture) for place in both.places if place.number]
    assert shown == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]


def test_a_thousand_regions_are_grouped(predictor_of, picture):
    predictor = predictor_of("lxmert_tiny", processor={"max_regions": 2000})
    (whole,) = explain(predictor, picture, found(1000)).pairs
    small = grouped(whole, tokens=4, regions=10)
    assert_whole(small)
    names = [place.name for place in small.places if place.special]
    assert names == ["[CLS]", "[SEP]", f"{len(whole.places) - 1006} more tokens", "990 more regions"]
    kept = {place.number for place in small.places if place.number}
    # Those are kept that are looked at most, with the same weights as before.
    place = next(n for n, one in enumerate(small.places) if one.number)
    before = next(n for n, one in enumerate(whole.places) if one.number == small.places[place].number)
    for new, old in zip(small.layers, whole.layers, strict=True):
        if place in new.keys and new.sides[0] == "text":
            column, was = new.keys.index(place), old.keys.index(before)
            np.testing.assert_allclose(new.weights[:, 0, column], old.weights[:, 0, was], atol=1e-6)
    assert len(kept) == 10
    assert grouped(small) is small


def test_a_model_without_attention_is_refused():
    class Silent(torch.nn.Module):
        def forward(self, inputs, reads):
            return None

    with pytest.raises(ConfigError, match="Silent"):
        pair_maps(Silent(), Inputs(), [])


def test_maps_that_a_model_does_not_describe_are_refused(predictor_of, picture):
    predictor = predictor_of("lxmert_tiny")
    predictor.model.attention_places = AttentionPlaces  # as if every map were over text and regions
    with pytest.raises(ConfigError, match=r"text_encoder.* 8 x 8 .* 11 x 11.*attention_places"):
        explain(predictor, picture, found(3), text="den Hund den Hund den Hund")


def test_weights_that_are_not_finite_are_refused(predictor_of, picture):
    predictor = predictor_of("uniter_tiny")
    torch.nn.init.constant_(predictor.model.encoder.layers[1].attention.query.weight, float("nan"))
    with pytest.raises(ConfigError, match=r"encoder\.layers\.1\.attention"):
        explain(predictor, picture, found(3))
