from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import uniter_tiny
from diptych.nn.boxes import iou
from diptych.tasks.objectives import (
    MaskedRegions,
    RegionFeatures,
    RegionLabels,
    RegionMasking,
    RegionProbabilities,
    Sample,
)
from diptych.types import Encoding, Inputs, PaddedRegions

CLASSES = 7


def seen(rows=200, many=50, width=64):
    generator = torch.Generator().manual_seed(0)
    count = torch.randint(1, many + 1, (rows,), generator=generator)
    mask = torch.arange(many) < count[:, None]
    return PaddedRegions(
        features=torch.randn(rows, many, width, generator=generator) * mask[..., None],
        boxes=torch.rand(rows, many, 4, generator=generator).sort(-1).values,
        mask=mask,
        image_index=torch.zeros(rows, many, dtype=torch.int64),
        sizes=torch.ones(rows, 2),
        labels=torch.randint(-1, CLASSES, (rows, many), generator=generator),
        scores=torch.rand(rows, many, generator=generator),
        probabilities=torch.rand(rows, many, CLASSES, generator=generator).softmax(-1),
    )


def corrupt(given, masking, seed=1, **options):
    return masking(given, torch.Generator().manual_seed(seed), **options)


def share(part, whole):
    return (part & whole).sum() / whole.sum()


def test_shares_are_those_of_lxmert():
    given = seen()
    shown, selected = corrupt(given, RegionMasking(hidden=0.8, exchanged=0.1))
    same = (shown.features == given.features).all(-1)
    zero = (shown.features == 0).all(-1)
    assert share(selected, given.mask) == pytest.approx(0.15, abs=0.01)
    assert not (selected & ~given.mask).any()
    assert torch.equal(zero & given.mask, shown.hidden)
    assert same[~selected].all()
    assert share(shown.hidden, selected) == pytest.approx(0.8, abs=0.04)
    other = selected & ~same & ~zero
    assert share(other, selected) == pytest.approx(0.1, abs=0.03)
    real = given.features[given.mask]
    assert (torch.cdist(shown.features[other], real).amin(1) < 0.02).all()


def test_one_region_at_least_is_asked():
    given = seen()
    shown, selected = corrupt(given, RegionMasking(rate=1e-6, at_least_one=True))
    assert (selected.sum(1) == 1).all()
    assert torch.equal(shown.hidden, selected)
    places = selected.float().argmax(1)
    assert places[given.mask.sum(1) > 5].float().std() > 1, "any region, not always the first"


def test_what_overlaps_an_asked_region_is_hidden_without_being_asked():
    given = seen(100, 10)
    shown, selected = corrupt(given, RegionMasking(hidden=0.9, overlap=0.4))
    others = ~torch.eye(10, dtype=torch.bool)
    near = ((iou(given.boxes, given.boxes) > 0.4) & others & selected[:, None]).any(2) & given.mask
    assert (near & ~selected).any()
    assert torch.equal(shown.hidden & ~selected, near & ~selected)
    assert shown.hidden[near].all()
    assert share(shown.hidden, selected & ~near) == pytest.approx(0.9, abs=0.07)


def test_the_whole_picture_is_neither_hidden_nor_asked():
    """Though it overlaps every other region."""
    given = seen(100, 10)
    given.boxes[:, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    masking = RegionMasking(rate=0.9, overlap=0.01)
    objective = MaskedRegions(uniter_tiny(), predict={}, masking=masking, whole_image=True)
    sample = objective.corrupt(Sample(inputs=Inputs(regions=given)), torch.Generator().manual_seed(0))
    shown = sample.inputs.regions
    assert not shown.hidden[:, 0].any()
    assert not sample.selected[:, 0].any()
    assert torch.equal(shown.mask, given.mask)
    assert torch.equal(shown.features[:, 0], given.features[:, 0])
    assert sample.selected[:, 1:][given.mask[:, 1:]].float().mean() > 0.8
    assert not sample.regions.mask[:, 0].any()


def ask(target, given, selected):
    """The loss, what it was made from, and the head."""
    torch.manual_seed(0)
    model = uniter_tiny()
    objective = MaskedRegions(model, predict={"it": target})
    states = torch.randn(*selected.shape, model.region_dim)
    sample = Sample(inputs=Inputs(regions=given), regions=given, selected=selected)
    loss = objective(model, Encoding(regions=states), sample)["it"]
    head = objective.predict["it"]
    return loss, head.decoder(objective.transform(states)) if head.decoder is not None else None


def test_lxmert_divides_by_a_share_of_all_real_regions():
    given = seen(4, 6)
    selected = given.mask & (torch.arange(6) % 2 == 0)
    divisor = 0.15 * given.mask.sum()
    asked = given.mask & (given.labels >= 0)
    loss, scores = ask(partial(RegionLabels, classes=CLASSES), given, selected)
    each = F.cross_entropy(scores[asked], given.labels[asked], reduction="none") * given.scores[asked]
    torch.testing.assert_close(loss, each.sum() / divisor)
    loss, scores = ask(
        partial(RegionLabels, classes=CLASSES, everywhere=False, weighted=False), given, selected
    )
    asked &= selected
    each = F.cross_entropy(scores[asked], given.labels[asked], reduction="none")
    torch.testing.assert_close(loss, each.sum() / divisor)
    loss, got = ask(partial(RegionFeatures, feature_dim=64, loss="smooth_l1", share=0.15), given, selected)
    each = F.smooth_l1_loss(got[selected], given.features[selected], reduction="none").mean(-1)
    torch.testing.assert_close(loss, each.sum() / divisor)


def test_vlbert_asks_regions_whose_probabilities_sum_to_one():
    given = seen(4, 6)
    given.probabilities[0] *= 0.5
    selected = given.mask.clone()
    loss, scores = ask(
        partial(RegionProbabilities, classes=CLASSES, loss="cross_entropy", by="rows"), given, selected
    )
    each = -(given.probabilities * scores.log_softmax(-1)).sum(-1) * selected
    rows = each[1:].sum(1) / (selected[1:].sum(1) + 1e-4)
    torch.testing.assert_close(loss, rows.sum() / (3 + 1e-4))


def test_a_label_beyond_the_classes_is_named():
    given = seen(2, 3)
    most = int(given.labels.max())
    with pytest.raises(ConfigError, match=rf"\b{most}\b.* labels.*\b{most} classes"):
        ask(partial(RegionLabels, classes=most), given, given.mask)


def test_absent_labels_are_missed_with_a_way_to_get_them():
    given = replace(seen(2, 3), labels=None)
    with pytest.raises(ConfigError, match=r" labels .*processor\.labels=true"):
        ask(partial(RegionLabels, classes=CLASSES), given, given.mask)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (partial(RegionFeatures), "feature_dim=None, tied=None"),
        (
            partial(RegionFeatures, feature_dim=64, tied="regions.feature"),
            r"feature_dim=64, tied=regions\.feature",
        ),
        (partial(RegionFeatures, feature_dim=64, loss="l1"), "loss='l1'.*'mse'.*'smooth_l1'"),
        (partial(RegionLabels, classes=3, field="colors"), "field .*'colors'"),
        (partial(RegionProbabilities, classes=3, loss="ce"), "loss .*'ce'.*'kl'"),
    ],
)
def test_odd_settings_are_refused(target, message):
    with pytest.raises(ConfigError, match=message):
        target(uniter_tiny())


def test_impossible_shares_are_refused():
    with pytest.raises(ConfigError, match=r"hidden=0\.9, exchanged=0\.2"):
        RegionMasking(hidden=0.9, exchanged=0.2)


def test_a_batch_of_texts_alone_has_no_loss_and_needs_no_labels():
    model = uniter_tiny()
    objective = MaskedRegions(model, predict={"kinds": partial(RegionProbabilities, classes=5)})
    nothing = PaddedRegions(
        features=torch.zeros(3, 1, 64),
        boxes=torch.zeros(3, 1, 4),
        mask=torch.zeros(3, 1, dtype=torch.bool),
        image_index=torch.zeros(3, 1, dtype=torch.int64),
        sizes=torch.ones(3, 2),
    )
    sample = objective.corrupt(Sample(inputs=Inputs(regions=nothing)), None)
    encoding = Encoding(regions=torch.randn(3, 1, 48, requires_grad=True))
    loss = objective(model, encoding, sample)["kinds"]
    loss.backward()
    assert loss == 0
    assert objective.grade(model, encoding, sample) == {}
