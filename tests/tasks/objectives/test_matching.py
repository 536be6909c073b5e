from dataclasses import replace

import pytest
import torch

from diptych.errors import ConfigError
from diptych.models import uniter_tiny
from diptych.tasks.objectives import Matching, Sample
from diptych.types import Encoding, Inputs, PaddedRegions, PaddedText


def pairs(rows=40):
    """Row n has the text n // 2 and the picture n // 3."""
    number = torch.arange(rows)
    ids = torch.stack([number // 2 + 5] * 3, 1)
    boxes = (number // 3)[:, None, None].expand(rows, 2, 4) / rows
    return Inputs(
        text=PaddedText(ids=ids, mask=ids > 0, segments=torch.zeros_like(ids)),
        regions=PaddedRegions(
            features=torch.randn(rows, 2, 64)[number // 3],  # those of the picture
            boxes=boxes,
            mask=torch.ones(rows, 2, dtype=torch.bool),
            image_index=torch.zeros(rows, 2, dtype=torch.int64),
            sizes=torch.ones(rows, 2),
        ),
    )


@pytest.mark.parametrize("exchange", ["text", "regions"])
def test_half_of_the_rows_get_a_stranger(exchange):
    objective, torn, donors = Matching(uniter_tiny(), exchange=exchange), 0, set()
    given = pairs()
    text, picture = given.text.ids[:, 0] - 5, torch.arange(40) // 3
    for seed in range(30):
        after = objective.corrupt(Sample(inputs=given), torch.Generator().manual_seed(seed))
        changed = after.mismatch == 1
        new_text = after.inputs.text.ids[:, 0] - 5
        new_picture = (after.inputs.regions.boxes[:, 0, 0] * 40).round().long()
        moved, kept = (new_text, new_picture) if exchange == "text" else (new_picture, new_text)
        here, there = (text, picture) if exchange == "text" else (picture, text)
        assert torch.equal(kept, there)
        assert torch.equal(moved != here, changed)
        assert not (changed & (new_text == text) & (new_picture == picture)).any()
        torn += int(changed.sum())
        donors |= set(moved[changed].tolist())
    assert torn / (30 * 40) == pytest.approx(0.5, abs=0.05)
    assert len(donors) >= 13


def test_rows_without_a_stranger_stay():
    one = pairs(1)
    after = Matching(uniter_tiny(), rate=1.0).corrupt(Sample(inputs=one), None)
    assert after.mismatch.tolist() == [0]
    assert torch.equal(after.inputs.text.ids, one.text.ids)


@pytest.mark.parametrize(
    ("matches", "classes", "expected"), [(1, 2, [1, 0]), (0, 2, [0, 1]), (0, 3, [0, 1, 2]), (1, 3, [1, 0, 2])]
)
def test_matches_names_the_class_of_an_intact_pair(matches, classes, expected):
    objective = Matching(uniter_tiny(), matches=matches, classes=classes)
    assert objective.labels(torch.arange(classes)).tolist() == expected


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        ({"matches": 2}, "^matches .* 2; .* 2 "),
        ({"classes": 1, "matches": 0}, "^matches .* 0; .* 1 "),
        ({"exchange": "image"}, "^exchange .*'image'"),
    ],
)
def test_odd_settings_are_refused(odd, named):
    with pytest.raises(ConfigError, match=named):
        Matching(uniter_tiny(), **odd)


def test_rows_without_regions_take_no_part():
    given = pairs()
    blind = torch.arange(40) % 4 == 1
    regions = replace(given.regions, mask=given.regions.mask & ~blind[:, None])
    model = uniter_tiny()
    objective = Matching(model, rate=1.0)
    after = objective.corrupt(
        Sample(inputs=replace(given, regions=regions)), torch.Generator().manual_seed(0)
    )
    assert torch.equal(after.mismatch == 0, blind)
    lent = set(after.inputs.text.ids[~blind, 0].tolist())
    assert lent <= set(given.text.ids[~blind, 0].tolist())
    pooled = torch.randn(40, 48)
    (loss,) = objective(model, Encoding(pooled=pooled), after).values()
    seen = Sample(inputs=given, mismatch=torch.ones(30, dtype=torch.int64))
    sub = replace(seen, inputs=given.map(lambda one: one[:30]))
    (expected,) = objective(model, Encoding(pooled=pooled[~blind]), sub).values()
    torch.testing.assert_close(loss, expected)
    nobody = replace(after, inputs=replace(given, regions=replace(regions, mask=regions.mask & False)))
    assert objective(model, Encoding(pooled=pooled), nobody)["match"] == 0
