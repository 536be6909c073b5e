import numpy as np
import pytest
from tests.explain.toy import TEXT, found, sources_of

from diptych.data import Sources
from diptych.explain import (
    METHODS,
    STAGES,
    Budget,
    Variants,
    check,
    evidence_of,
    rank_correlation,
    removal,
    sanity,
    shuffled,
)

QUICK = Budget(permutations=2)


@pytest.fixture
def variants(predictor_of, picture):
    predictor = predictor_of("uniter_tiny")
    example = predictor.example("7", keys=("street",), text=TEXT)
    return Variants(predictor, example, sources_of(predictor, street=(picture, found(3))), QUICK)


@pytest.fixture
def additive(variants, monkeypatch):
    """A model whose log-odds are a sum over what is shown: 2 for the third player, -1 for the first."""

    def shown(coalitions):
        return coalitions[:, 2] * 2.0 - coalitions[:, 0]

    monkeypatch.setattr(variants, "shown", shown)
    return variants


def test_curves_of_a_model_that_is_known(additive):
    why = evidence_of(additive)
    np.testing.assert_allclose(why.contributions.values[[2, 0]], [2, -1], atol=1e-9)
    curves = removal(additive, why)
    one = curves[METHODS[0]]
    # Of eight players, the third is hidden first and the first last; shares lie between whole players.
    players = np.linspace(0, 1, len(why.players) + 1)

    def sigmoid(x):
        return 1 / (1 + np.exp(-np.array(x, float)))

    middle = len(why.players) - 1
    deletion = np.interp(np.linspace(0, 1, 11), players, sigmoid([1, *[-1] * middle, 0]))
    insertion = np.interp(np.linspace(0, 1, 11), players, sigmoid([0, *[2] * middle, 1]))
    np.testing.assert_allclose(one.deletion, deletion)
    np.testing.assert_allclose(one.insertion, insertion)
    assert one.areas[0] < curves["random order"].areas[0]
    assert one.areas[1] > curves["random order"].areas[1]


def test_shuffled_weights_come_back_bit_for_bit(variants):
    before = variants.predict([variants.rows]).scores
    for stage in STAGES:
        with shuffled(variants.predictor, stage):
            assert abs(variants.predict([variants.rows]).scores - before).max() > 1e-6
        np.testing.assert_array_equal(variants.predict([variants.rows]).scores, before)
    with pytest.raises(ZeroDivisionError), shuffled(variants.predictor, "all"):
        _ = 1 / 0
    np.testing.assert_array_equal(variants.predict([variants.rows]).scores, before)


def test_explanations_that_ignore_the_weights_are_seen(variants, monkeypatch):
    why = evidence_of(variants)
    found = sanity(variants, why)
    assert all(abs(value) < 0.999 for value in found[METHODS[0]].values())
    # One that depends on the input only.
    monkeypatch.setattr(variants, "relevance", lambda: why.relevance)
    assert sanity(variants, why)[METHODS[1]] == pytest.approx(dict.fromkeys(STAGES, 1.0))


def test_rank_correlation_shares_ties():
    assert rank_correlation(np.array([1.0, 2, 2, 4]), np.array([10.0, 20, 20, 30])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # As scipy.stats.spearmanr.
    assert rank_correlation(np.array([1.0, 2, 2, 4]), np.array([4.0, 1, 3, 2])) == pytest.approx(-0.6324555)
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))


def test_a_model_of_text_alone_and_an_empty_text_are_checked(predictor_of):
    predictor = predictor_of("text_bert_tiny")
    every = [
        Variants(predictor, predictor.example("7", keys=(), text=text), Sources(), QUICK)
        for text in (TEXT, "")
    ]
    found = check(every, sane=1)
    assert found.examples == 2
    assert found.swaps == found.words == found.chance == {}
    document = found.as_dict()
    assert len(document["curves"][METHODS[0]]["deletion"]) == 11
    assert document["margin"]["random order"]["value"] < document["margin"][METHODS[0]]["value"]
