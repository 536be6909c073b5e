import numpy as np
import pytest
from tests.explain.toy import TEXT, found, sources_of

from diptych.explain import Budget, JointVariants, Variants, evidence_of
from diptych.predictions import Predictions

QUICK = Budget(permutations=2, groups=3)


def mean(members):
    """The mean of the members' probabilities."""
    first = next(iter(members.values()))
    scores = np.mean([one.scores for one in members.values()], axis=0)
    names = tuple(first.classes[at] for at in scores.argmax(1))
    return Predictions(ids=first.ids, scores=scores, answers=names, classes=first.classes)


def variants(predictor, picture, regions):
    example = predictor.example("7", keys=("street",), text=TEXT)
    return Variants(predictor, example, sources_of(predictor, street=(picture, regions)), QUICK)


@pytest.fixture
def members(predictor_of, picture):
    """Three models; two read the same regions, and the third others."""
    return {
        name: variants(predictor_of(f"{name}_tiny"), picture, found(count, seed))
        for name, count, seed in (("uniter", 3, 0), ("lxmert", 3, 0), ("vlbert", 2, 1))
    }


def test_values_are_those_of_the_blend(members):
    joint = JointVariants(members, mean)
    why = evidence_of(joint)
    assert why.scores == pytest.approx(
        {
            name: np.mean([one.whole.scores[0, at] for one in members.values()])
            for at, name in enumerate(joint.whole.classes)
        }
    )
    assert why.contributions.values.sum() == pytest.approx(why.both - why.neither, abs=1e-5)
    assert why.relevance is None


def test_words_and_areas_are_hidden_from_all_members(members):
    joint = JointVariants(members, mean)
    assert [one.name for one in joint.players if one.of_text] == TEXT.split()
    areas = [one for one in joint.players if not one.of_text]
    assert len(areas) == QUICK.groups
    assert sum(len(one.places) for one in areas) == 3 + 3 + 2
    bare = joint.of_members([joint.without(range(len(joint.players)))])
    for name, one in members.items():
        alone = one.predict([one.without(range(len(one.players)))])
        np.testing.assert_allclose(bare[name].scores, alone.scores, atol=1e-6)


def test_a_blend_of_one_is_that_model(members):
    one = members["uniter"]
    why = evidence_of(JointVariants({"uniter": one}, mean))
    alone = evidence_of(one)
    assert why.players == alone.players
    np.testing.assert_allclose(why.contributions.values, alone.contributions.values, atol=1e-6)


def test_words_that_tokenizers_cut_differently_are_one(members):
    one, other = members["uniter"], members["lxmert"]
    # As a tokenizer that keeps two words together.
    first, second, *rest = other.players
    whole = Variants.__new__(Variants)
    whole.__dict__.update(other.__dict__)
    both = type(first)(
        kind="word",
        name=f"{first.name} {second.name}",
        places=first.places + second.places,
        spans=((0, first.spans[0][1], second.spans[0][2]),),
    )
    whole.players = [both, *rest]
    words = [player for player in JointVariants({"a": one, "b": whole}, mean).players if player.of_text]
    assert words[0].name == both.name
    assert words[0].spans == both.spans
    assert len(words) == len(TEXT.split()) - 1
