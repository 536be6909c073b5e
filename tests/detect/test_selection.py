import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from diptych.detect import BoxRule, Detection, describe, select
from diptych.errors import ConfigError

RULES = [BoxRule.parse(text) for text in ("36", "50", "72", "10:100")]


def detection(count=80, *, classes=7, attributes=None, seed=0, sharpness=3.0):
    """Random findings in a picture of 400 x 300 that the network saw at twice the size."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([800.0, 600.0])
    return Detection(
        size=(400, 300),
        resized=(800, 600),
        boxes=torch.cat([corners.amin(1), corners.amax(1)], 1),
        objectness=torch.linspace(5, -5, count),
        features=torch.arange(count).float()[:, None].expand(count, 3),
        class_logits=sharpness * torch.randn(count, classes + 1, generator=generator),
        deltas=torch.randn(count, 4 * classes, generator=generator),
        attribute_logits=None
        if attributes is None
        else torch.randn(count, attributes + 1, generator=generator),
    )


def overlaps(boxes):
    """Intersection over union of all pairs."""
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    both = (high - low).clip(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return both / (areas[:, None] + areas - both)


@pytest.mark.parametrize(("text", "rule"), [("36", BoxRule(36, 36)), ("10:100", BoxRule(10, 100))])
def test_rules_are_written_as_they_are_read(text, rule):
    assert BoxRule.parse(text) == rule
    assert str(rule) == text


@pytest.mark.parametrize("text", ["", "0", "ten", "100:10", "10:", "1:2:3", "-3"])
def test_other_rules_are_refused(text):
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        BoxRule.parse(text)


def test_other_modes_are_refused():
    with pytest.raises(ConfigError, match=r"'best': .* max-class, per-class, caffe"):
        BoxRule.parse("36", "best")


def test_the_best_class_of_every_proposal_competes_with_all_others():
    found = detection()
    for rule, regions in zip(RULES, select(found, RULES), strict=True):
        assert rule.least <= len(regions) <= rule.most
        assert (np.diff(regions.scores) <= 0).all()
        rows = regions.features[:, 0].astype(int)
        assert len(set(rows)) == len(rows)
        best = found.class_logits.softmax(1)[:, :-1].max(1)
        assert (regions.labels == best.indices.numpy()[rows]).all()
        np.testing.assert_allclose(regions.scores, best.values.numpy()[rows])
        off_diagonal = overlaps(regions.boxes) - np.eye(len(regions))
        assert off_diagonal.max() <= 0.9
        regions.verify()


def test_the_threshold_rises_only_as_far_as_needed():
    found = detection()
    for least, threshold in ((5, 0.3), (60, 0.9)):
        (regions,) = select(found, [BoxRule(least, 80)])
        worst = (overlaps(regions.boxes) - np.eye(len(regions))).max()
        assert (worst <= 0.3) == (threshold == 0.3)


def test_many_rules_give_what_each_gives_alone():
    found = detection(attributes=5)
    rules = [*RULES, BoxRule(8, 8, "per-class"), BoxRule(10, 20, "caffe")]
    for rule, together in zip(rules, select(found, rules), strict=True):
        (alone,) = select(found, [rule])
        np.testing.assert_array_equal(alone.boxes, together.boxes)
        np.testing.assert_array_equal(alone.features, together.features)


def test_fewer_than_asked_where_there_are_no_more():
    (regions,) = select(detection(12), [BoxRule(36, 36)])
    assert 1 <= len(regions) <= 12
    (regions,) = select(detection(0), [BoxRule(36, 36)])
    assert regions.features.shape == (0, 3)


def test_class_by_class_a_proposal_may_come_back():
    logits = torch.full((2, 4), -9.0)
    logits[0, [0, 1]], logits[1, 2] = 2.0, 2.0
    found = replace(detection(2, classes=3), class_logits=logits, deltas=torch.zeros(2, 12))
    (regions,) = select(found, [BoxRule(3, 3, "per-class")])
    assert sorted(zip(regions.features[:, 0].tolist(), regions.labels.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 2),
    ]


def test_caffe_keeps_proposals_where_they_are():
    """Against the class-by-class loop of the original's script."""
    found = detection(60, sharpness=1.5)
    scores = found.class_logits.softmax(1)[:, :-1].numpy()
    among, strength = overlaps(found.boxes.numpy()), np.zeros(60)
    for one in scores.T:
        kept = []
        for row in np.argsort(-one, kind="stable"):
            if all(among[row, other] <= 0.3 for other in kept):
                kept.append(row)
        strength[kept] = np.maximum(strength[kept], one[kept])
    strong, ranked = np.flatnonzero(strength >= 0.2), np.argsort(-strength, kind="stable")
    assert 5 < len(strong) < 60
    for least, most, rows in (
        (5, 60, strong),
        (1, 5, ranked[:5]),
        (len(strong) + 3, 60, ranked[: len(strong) + 3]),
    ):
        (regions,) = select(found, [BoxRule(least, most, "caffe")])
        assert regions.features[:, 0].tolist() == rows.tolist()
        np.testing.assert_allclose(regions.boxes, found.boxes.numpy()[rows] / 2)
        assert (regions.labels == scores[rows].argmax(1)).all()


def test_attributes_leave_the_background_out_before_probabilities():
    found = detection(attributes=5)
    (regions,) = select(found, [BoxRule(36, 36)])
    rows = regions.features[:, 0].astype(int)
    best = found.attribute_logits[rows, :5].softmax(1).max(1)
    assert (regions.attributes == best.indices.numpy()).all()
    np.testing.assert_allclose(regions.attribute_scores, best.values.numpy())
    assert select(detection(), [BoxRule(36, 36)])[0].attributes is None


def test_boxes_empty_in_the_picture_are_dropped_with_all_that_is_theirs():
    found = replace(detection(4), deltas=torch.zeros(4, 28))
    boxes = torch.tensor([[0.0, 0, 50, 50], [100, 100, 100, 200], [700, 0, 900, 90], [850, 0, 900, 50]])
    (regions,) = select(replace(found, boxes=boxes), [BoxRule(4, 4)])
    assert sorted(regions.features[:, 0].tolist()) == [0, 2]
    assert len(regions.boxes) == len(regions.scores) == 2


def test_given_boxes_come_back_as_they_are():
    found = detection(3, attributes=2)
    boxes = torch.tensor([[10.0, 10, 5, 5], [-3, 0, 999, 20], [1, 2, 3, 4]])
    regions = describe(found, boxes)
    assert np.array_equal(regions.boxes, boxes)
    assert regions.features[:, 0].tolist() == [0, 1, 2]
    assert (regions.labels == found.class_logits[:, :-1].argmax(1).numpy()).all()
