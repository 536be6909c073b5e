"""Formulas by hand, and what must not matter: order of rows, of members and of classes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from diptych.ensemble import agreement, blend, member_names
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

CLASSES = ("benign", "hateful")
METHODS = ("mean", "power", "rank", "geometric", "logit")


def binary(positive, ids=None, **meta):
    positive = np.array(positive)
    ids = tuple(ids) if ids else tuple(str(n) for n in range(len(positive)))
    return Predictions(ids=ids, scores=np.stack((1 - positive, positive), 1), classes=CLASSES, meta=meta)


@pytest.fixture
def members():
    """Three members over three classes and 20 examples."""
    generator = np.random.default_rng(0)
    ids = tuple(f"id{n}" for n in range(20))
    classes = ("cat", "dog", "owl")
    return [
        Predictions(ids=ids, scores=generator.dirichlet(np.ones(3), 20), classes=classes) for _ in range(3)
    ]


def test_formulas_by_hand():
    first, second = binary([0.2, 0.6, 0.9]), binary([0.4, 0.1, 0.9])
    positive = {m: blend([first, second], method=m).column("hateful") for m in METHODS}
    assert positive["mean"] == pytest.approx([0.3, 0.35, 0.9])
    power = np.sqrt(np.array([0.04 + 0.16, 0.36 + 0.01, 0.81 + 0.81]) / 2)
    other = np.sqrt(np.array([0.64 + 0.36, 0.16 + 0.81, 0.01 + 0.01]) / 2)
    assert positive["power"] == pytest.approx(power / (power + other))
    yes, no = np.sqrt([0.2 * 0.4, 0.6 * 0.1, 0.81]), np.sqrt([0.8 * 0.6, 0.4 * 0.9, 0.01])
    assert positive["geometric"] == pytest.approx(yes / (yes + no))
    assert positive["logit"] == pytest.approx(yes / (yes + no))
    assert positive["rank"] == pytest.approx([(1 + 2) / 6, (2 + 1) / 6, 1.0])


def test_weights_are_relative():
    first, second = binary([0.2, 0.6]), binary([0.4, 0.1])
    result = blend([first, second], weights=[3.0, 1.0])
    assert result.column("hateful") == pytest.approx([0.25, 0.475])
    assert result.meta["weights"] == [0.75, 0.25]
    log_odds = 0.75 * np.log(0.25) + 0.25 * np.log(0.4 / 0.6)
    geometric = blend([first, second], method="geometric", weights=[3.0, 1.0])
    assert geometric.column("hateful")[0] == pytest.approx(1 / (1 + np.exp(-log_odds)))


def test_ties_share_their_rank():
    assert blend([binary([0.5, 0.5, 0.9])], method="rank").column("hateful") == pytest.approx([0.5, 0.5, 1])


@pytest.mark.parametrize("method", METHODS)
def test_order_of_members_rows_and_classes_does_not_matter(members, method):
    expected = blend(members, method=method, weights=[1.0, 2.0, 3.0])
    swapped = blend(members[::-1], method=method, weights=[3.0, 2.0, 1.0])
    assert swapped.scores == pytest.approx(expected.scores, abs=1e-12)
    generator = np.random.default_rng(1)
    shuffled = [members[0], *(member.select(generator.permutation(20)) for member in members[1:])]
    assert np.array_equal(blend(shuffled, method=method, weights=[1.0, 2.0, 3.0]).scores, expected.scores)
    turned = Predictions(
        ids=members[2].ids, scores=members[2].scores[:, ::-1].copy(), classes=members[2].classes[::-1]
    )
    other = blend([*members[:2], turned], method=method, weights=[1.0, 2.0, 3.0])
    assert np.array_equal(other.scores, expected.scores)


@pytest.mark.parametrize("method", METHODS)
def test_one_member_keeps_its_order_and_probabilities_stay(members, method):
    result = blend(members[:1], method=method)
    assert result.ids == members[0].ids
    if method != "rank":
        assert result.scores == pytest.approx(members[0].scores)
    if method not in ("rank", "logit"):
        assert blend(members, method=method).scores.sum(axis=1) == pytest.approx(np.ones(20))
    for index in range(3):
        before, after = members[0].scores[:, index], result.scores[:, index]
        assert np.array_equal(before.argsort(), after.argsort())


def test_power_lies_between_geometric_mean_and_maximum(members):
    assert blend(members, method="power", power=1.0).scores == pytest.approx(blend(members).scores)
    almost = blend(members, method="power", power=1e-6).scores
    assert almost == pytest.approx(blend(members, method="geometric").scores, abs=1e-5)
    highest = np.max([member.scores for member in members], axis=0)
    steep = blend(members, method="power", power=2000.0).scores
    assert steep == pytest.approx(highest / highest.sum(axis=1, keepdims=True), abs=1e-2)


def test_certain_members_that_contradict_cancel_out():
    for method in ("geometric", "logit"):
        scores = blend([binary([0.0, 1.0]), binary([1.0, 1.0])], method=method).column("hateful")
        assert scores == pytest.approx([0.5, 1.0])


def test_log_odds_are_averaged_class_by_class(members):
    scores = blend(members, method="logit").scores
    odds = np.mean([np.log(member.scores / (1 - member.scores)) for member in members], axis=0)
    assert scores == pytest.approx(1 / (1 + np.exp(-odds)))


def test_answers_and_provenance():
    first = binary([0.2, 0.9], path="runs/a.npz", split="dev", bundle="a")
    second = binary([0.4, 0.9], path="runs/b.npz", split="dev", bundle="b")
    result = blend([first, second], method="power", power=3.0)
    assert result.answers == ("benign", "hateful")
    assert result.meta == {
        "split": "dev",
        "method": "power",
        "members": ["a.npz", "b.npz"],
        "weights": [0.5, 0.5],
        "power": 3,
    }


def test_members_are_named_by_file_then_path_then_number():
    same = [binary([0.5], path="x/a.npz"), binary([0.5], path="y/a.npz"), binary([0.5])]
    assert member_names(same) == ("x/a.npz", "y/a.npz", "member 3")


def test_differing_ids_name_the_file_and_the_ids():
    first = binary([0.1] * 8, path="a.csv")
    second = binary([0.1] * 2, ids=("0", "new"), path="b.csv")
    with pytest.raises(FormatError) as caught:
        blend([first, second])
    assert "the same 9 examples: a.csv lacks 1 (new); b.csv lacks 7 (1, 2, 3, 4, 5, ...)." in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Predictions(ids=("0",), scores=np.array([[0.5, 0.5]]), classes=("no", "yes")), "('no', 'yes')"),
        (Predictions(ids=("0",), answers=("benign",), classes=CLASSES), "scores"),
        (binary([0.5, 0.5], ids=("0", "0")), "one row for every id"),
        (binary([np.nan]), "id '0'"),
        (binary([-1.5]), "score 2.5"),
    ],
)
def test_a_member_that_does_not_fit_is_named(second, message):
    with pytest.raises(FormatError, match=r"^member 2: ") as caught:
        blend([binary([0.5]), second])
    assert message in str(caught.value)


def test_scores_that_do_not_sum_to_one_are_not_normalized():
    single = Predictions(ids=("0", "1"), scores=np.array([[0.2], [0.7]]))
    assert blend([single, single]).scores == pytest.approx(single.scores)
    assert blend([single], method="rank").scores[:, 0] == pytest.approx([0.5, 1])
    assert blend([single]).answers is None
    for method in ("power", "geometric"):
        with pytest.raises(FormatError, match=r"0\.2"):
            blend([single], method=method)


def test_ranks_take_any_scores():
    logits = Predictions(ids=("0", "1"), scores=np.array([[-3.0, 7.0], [2.0, 1.0]]), classes=CLASSES)
    assert blend([logits], method="rank").column("hateful") == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0]}, "1 weights .* 2 members"),
        ({"weights": [1.0, -1.0]}, r"\[1\.0, -1\.0\]"),
        ({"weights": [0.0, 0.0]}, r"\[0\.0, 0\.0\]"),
        ({"power": 0.0}, "power is 0"),
        ({"power": float("nan")}, "power is nan"),
    ],
)
def test_unusable_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        blend([binary([0.5]), binary([0.6])], **options)


def test_nothing_to_blend_is_refused():
    with pytest.raises(ConfigError):
        blend([])


def test_agreement_is_the_spearman_matrix(members):
    matrix = agreement(members, of="dog")
    assert matrix == pytest.approx(spearmanr(np.stack([m.column("dog") for m in members], 1)).statistic)
    shuffled = [members[0], members[1].select(range(19, -1, -1)), members[2]]
    assert agreement(shuffled, of="dog") == pytest.approx(matrix)
    constant = agreement([binary([0.1, 0.2]), binary([0.5, 0.5])])
    assert constant[0, 0] == pytest.approx(1.0)
    assert np.isnan(constant[0, 1])
    with pytest.raises(ConfigError, match=r"'dogg'.*'dog'"):
        agreement(members, of="dogg")


def test_several_labels_are_blended_without_an_answer():
    scores = np.array([[0.9, 0.8], [0.1, 0.2]])
    one = Predictions(ids=("a", "b"), scores=scores, answers=("x | y", ""), classes=("x", "y"), form="labels")
    both = blend([one, replace(one, scores=1 - scores)])
    assert (both.form, both.answers) == ("labels", None)
    assert both.scores == pytest.approx(np.full((2, 2), 0.5))
