import numpy as np
import pytest
import torch
from tests.explain.test_attention import FAMILIES
from tests.explain.toy import TEXT, found, sources_of

from diptych.data import Sources
from diptych.explain import Budget, explain, grouped_boxes, overlap, probability, relevance
from diptych.types import Encoding

QUICK = Budget(permutations=2)


def evidence_of(predictor, picture, regions, text=TEXT, budget=QUICK):
    example = predictor.example("7", keys=("street",), text=text)
    return explain(predictor, example, sources_of(predictor, street=(picture, regions)), budget=budget)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_explained(predictor_of, picture, family):
    why = evidence_of(predictor_of(f"{family}_tiny"), picture, found(3))
    assert [player.name for player in why.players if player.of_text] == TEXT.split()
    assert sum(len(player.places) for player in why.players if not player.of_text) == 3
    # The values share out the whole difference, and the answer is what the model gives.
    assert why.contributions.values.sum() == pytest.approx(why.both - why.neither, abs=1e-5)
    assert probability(why.both) == pytest.approx(why.scores[why.explained], abs=1e-6)
    assert why.explained == why.answer
    assert 0 <= why.text_share <= 1
    assert (why.relevance >= 0).all()
    assert why.relevance.any()


def test_words_are_found_in_the_text(predictor_of, picture):
    why = evidence_of(predictor_of("uniter_tiny"), picture, found(2))
    for player in why.players:
        for segment, start, stop in player.spans:
            assert (segment, TEXT[start:stop]) == (0, player.name)


def test_object_names_are_part_of_the_picture(predictor_of, picture):
    why = evidence_of(predictor_of("oscar_tiny", processor={"tags": True}), picture, found(1))
    tags = [player for player in why.players if player.kind == "tag"]
    assert "".join(tag.name for tag in tags) == "dog,hound"
    assert not any(tag.of_text for tag in tags)


def test_equal_seeds_explain_alike_in_any_batches(predictor_of, picture):
    predictor = predictor_of("lxmert_tiny")
    one, other, single = (
        evidence_of(predictor, picture, found(8), budget=Budget(permutations=2, batch_size=size))
        for size in (32, 32, 3)
    )
    np.testing.assert_array_equal(one.contributions.values, other.contributions.values)
    np.testing.assert_allclose(one.contributions.values, single.contributions.values, atol=1e-4)


def test_a_model_of_text_alone_is_explained_by_its_words(predictor_of):
    predictor = predictor_of("text_bert_tiny")
    why = explain(predictor, predictor.example("7", keys=(), text=TEXT), Sources(), budget=QUICK)
    assert all(player.of_text for player in why.players)
    assert why.picture_only == why.neither
    assert why.interaction == pytest.approx(0, abs=1e-9)
    assert why.text_share == 1


@pytest.mark.parametrize("family", ["uniter", "vlbert", "vilbert"])
def test_a_picture_without_regions(predictor_of, picture, family):
    why = evidence_of(predictor_of(f"{family}_tiny"), picture, found(0))
    assert all(player.of_text for player in why.players)


def test_an_empty_text_and_no_region_explain_nothing(predictor_of, picture):
    why = evidence_of(predictor_of("uniter_tiny"), picture, found(0), text="")
    assert (why.players, why.text_share) == ((), None)
    assert why.both == why.neither


def test_a_thousand_regions_are_grouped_within_the_budget(predictor_of, picture):
    predictor = predictor_of("uniter_tiny", processor={"max_regions": 2000})
    budget = Budget(permutations=2, groups=6, words=3)
    why = evidence_of(predictor, picture, found(1000), budget=budget)
    groups = [player for player in why.players if not player.of_text]
    assert len(groups) == 6
    assert sorted(at for player in groups for _, at in player.places) == [*range(1000)]
    assert len([player for player in why.players if player.of_text]) == 3
    assert why.contributions.evaluations <= 2 * 2 * 9


def test_two_pictures_share_their_text(predictor_of, picture):
    predictor = predictor_of("uniter_tiny", pairs=2)
    example = predictor.example("7", keys=("left", "right"), text=TEXT)
    sources = sources_of(predictor, left=(picture, found(2)), right=(picture, found(3, seed=1)))
    why = explain(predictor, example, sources, budget=QUICK)
    assert [player.name for player in why.players if player.of_text] == TEXT.split()
    assert all({pair for pair, _ in player.places} == {0, 1} for player in why.players if player.of_text)
    assert {player.places[0][0] for player in why.players if not player.of_text} == {0, 1}


def test_boxes_of_one_thing_are_grouped():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9], [0.5, 0.5, 0.6, 0.6], [0, 0, 0, 0.5]])
    assert overlap(boxes[0], boxes).tolist() == pytest.approx([1, 0.9, 0.01, 0])
    assert grouped_boxes(boxes, 9) == [[0, 1], [2], [3]]
    assert grouped_boxes(boxes, 2) == [[0, 1, 3], [2]]
    assert grouped_boxes(boxes[:0], 2) == []


@pytest.mark.parametrize("family", ["uniter", "lxmert", "vilbert"])
def test_padding_does_not_change_relevance(predictor_of, picture, family):
    predictor = predictor_of(f"{family}_tiny")
    rows = []
    for text, count in ((TEXT, 5), ("den Hund", 2)):
        example = predictor.example("7", keys=("street",), text=text)
        sources = sources_of(predictor, street=(picture, found(count)))
        rows.append(predictor.processor.rows(example, sources))
    both, alone = predictor.batch_of(rows), predictor.batch_of(rows[1:])

    def explained(batch):
        def logit(encoding: Encoding) -> torch.Tensor:
            return predictor.task.score(encoding, batch)[:, 1]

        return relevance(predictor.model, batch.inputs, logit)

    padded, bare = explained(both), explained(alone)
    for part in ("text", "regions"):
        numbers, expected = getattr(padded, part)[1], getattr(bare, part)[0]
        torch.testing.assert_close(numbers[: len(expected)], expected, atol=1e-5, rtol=1e-4)
        assert not numbers[len(expected) :].any()
