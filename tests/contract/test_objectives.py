"""What every pre-training objective promises, with every tiny model that has states of text and regions."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from diptych import models
from diptych.errors import ConfigError
from diptych.tasks import Pretrain, objectives
from diptych.tasks.objectives import (
    Alignment,
    Answers,
    Confounders,
    Contrast,
    Interventions,
    MaskedRegions,
    MaskedText,
    Matching,
    Objective,
    RegionFeatures,
    RegionLabels,
    RegionMasking,
    RegionProbabilities,
    Sample,
    TagContrast,
    WordMasking,
)
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText

PAD, CLS, SEP, MASK = SPECIAL = (0, 2, 3, 4)
CLASSES, WIDTH = 9, 64
WORDS = WordMasking(mask_id=MASK, special=SPECIAL, rate=0.5, random_from=10)
REGIONS = RegionMasking(rate=0.5, hidden=0.6, exchanged=0.3)
GENERATOR = torch.Generator().manual_seed(5)
SEEN = Confounders(
    vectors=torch.randn(CLASSES, WIDTH, generator=GENERATOR), prior=torch.full((CLASSES,), 0.1)
)
KNOWN = Confounders(vectors=torch.randn(7, 48, generator=GENERATOR), prior=torch.full((7,), 0.1))


def regions(**predict):
    return partial(MaskedRegions, masking=REGIONS, predict=predict)


CASES = {
    "words": partial(MaskedText, masking=WORDS),
    "words by rows": partial(MaskedText, masking=WORDS, by="rows"),
    "features": regions(features=partial(RegionFeatures, feature_dim=WIDTH)),
    "smooth features": regions(
        features=partial(RegionFeatures, feature_dim=WIDTH, loss="smooth_l1", share=0.15)
    ),
    "labels": regions(labels=partial(RegionLabels, classes=CLASSES, everywhere=False)),
    "attributes": regions(
        attributes=partial(RegionLabels, classes=CLASSES, everywhere=False, field="attributes")
    ),
    **{
        loss: regions(probabilities=partial(RegionProbabilities, classes=CLASSES, loss=loss))
        for loss in ("kl", "kl_mean", "cross_entropy", "hard")
    },
    "noise": regions(),
    "matching": Matching,
    "matching images": partial(Matching, exchange="regions", matches=0),
    "one logit": partial(Matching, classes=1),
    "contrast": partial(TagContrast, classes=3, rate=0.4, caption_rate=0.4),
    "answers": partial(Answers, labels=("a", "b", "c")),
    "alignment": Alignment,
    "interventions": partial(Interventions, seen=SEEN, known=KNOWN, nouns=range(10, 60)),
}
ASKS_NOTHING = {"noise"}
TINY = [name for name in models.__all__ if name.endswith("_tiny")]
BOTH = [name for name in TINY if getattr(models, name)().region_dim]


def sample(*, extra=0, seed=0, empty=False) -> Sample:
    """Five rows of two segments; `extra` more positions of padding; `empty` rows have no region."""
    generator = torch.Generator().manual_seed(seed)
    lengths, counts = torch.tensor([9, 6, 8, 9, 7]), torch.tensor([4, 2, 3, 4, 1]) * (not empty)
    rows, width, many = 5, 9, 4
    ids = torch.randint(10, 99, (rows, width), generator=generator)
    ids[:, 0], ids[:, 3], ids[torch.arange(rows), lengths - 1] = CLS, SEP, SEP
    mask = torch.arange(width) < lengths[:, None]
    corners = torch.rand(rows, many, 4, generator=generator).sort(-1).values
    text = PaddedText(
        ids=ids.masked_fill(~mask, PAD), mask=mask, segments=((torch.arange(width) > 3) & mask).long()
    )
    given = PaddedRegions(
        features=torch.randn(rows, many, WIDTH, generator=generator)
        * (torch.arange(many) < counts[:, None])[..., None],
        boxes=corners,
        mask=torch.arange(many) < counts[:, None],
        image_index=torch.zeros(rows, many, dtype=torch.int64),
        sizes=torch.full((rows, 2), 100.0),
        labels=torch.randint(-1, CLASSES, (rows, many), generator=generator),
        scores=torch.rand(rows, many, generator=generator),
        attributes=torch.randint(CLASSES, (rows, many), generator=generator),
        attribute_scores=torch.rand(rows, many, generator=generator),
        probabilities=torch.rand(rows, many, CLASSES, generator=generator).softmax(-1),
    )
    scores = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0.3, 0.3, 1], [1, 0, 0], [0, 0, 1]])
    inputs = Inputs(
        text=text.map(lambda one: pad(one, extra)),
        regions=given.map(lambda one: one if one.shape[1:] == (2,) else pad(one, extra)),
    )
    return Sample(inputs=inputs, targets=scores)


def pad(tensor, extra):
    return torch.cat([tensor, tensor.new_zeros(len(tensor), extra, *tensor.shape[2:])], 1)


def build(name, case):
    torch.manual_seed(0)
    model = getattr(models, name)()
    return model, CASES[case](model)


def ask(model, objective, given, seed=1):
    """The corrupted sample and the losses."""
    corrupted = objective.corrupt(given, torch.Generator().manual_seed(seed))
    return corrupted, objective(model, model(corrupted.inputs, reads=objective.reads), corrupted)


def test_every_objective_has_a_case():
    kinds = {one for one in vars(objectives).values() if isinstance(one, type) and issubclass(one, Objective)}
    built = {type(case(models.uniter_tiny())) for case in CASES.values()}
    # Contrast is for dual encoders, which have no states of regions; see tests/tasks/test_contrast.py.
    assert built == kinds - {Objective, Contrast}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", BOTH)
def test_losses_are_finite_and_teach(name, case):
    model, objective = build(name, case)
    _, losses = ask(model, objective, sample())
    assert tuple(losses) == objective.parts
    assert bool(losses) == (case not in ASKS_NOTHING)
    for part, loss in losses.items():
        assert loss.isfinite(), part
        parameters = [*objective.parameters(), *model.parameters()]
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in found), part


@pytest.mark.parametrize("case", sorted(set(CASES) - ASKS_NOTHING))
@pytest.mark.parametrize("kind", ["nobody asked", "asked for nothing"])
def test_a_batch_without_targets_gives_zero_with_zero_gradients(case, kind):
    model, objective = build("uniter_tiny", case)
    empty = case in ("alignment", "interventions")  # what these two ask is there wherever a region is
    given = sample(empty=empty)
    text, seen = given.inputs.text, given.inputs.regions
    if empty:
        given = replace(given, words=text.ids)  # of which no noun is left to ask
    elif kind == "asked for nothing":
        given = replace(
            given,
            regions=seen,
            words=torch.full_like(text.ids, -1),
            selected=torch.zeros_like(seen.mask),
            answers=torch.full((len(text.ids),), -1),
        )
    losses = objective(model, model(given.inputs, reads=objective.reads), given)
    for part, loss in losses.items():
        assert loss == 0, part
        loss.backward(retain_graph=True)
    for parameter in [*objective.parameters(), *model.parameters()]:
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_asks_the_same(case):
    model, objective = build("uniter_tiny", case)
    model.eval()
    given = sample()
    _, first = ask(model, objective, given)
    _, again = ask(model, objective, given)
    assert first == again
    before = [tensor.clone() for tensor in leaves(given)]
    corrupted, _ = ask(model, objective, given)
    assert all(map(torch.equal, before, leaves(given))), "corruption leaves the batch as it was"
    if type(objective).corrupt is not Objective.corrupt:
        others = [objective.corrupt(given, torch.Generator().manual_seed(seed)) for seed in range(2, 8)]
        assert any(
            not torch.equal(one, other)
            for changed in others
            for one, other in zip(leaves(corrupted), leaves(changed), strict=True)
        )


def leaves(given):
    parts = [given.inputs.text, given.inputs.regions]
    tensors = [
        value for part in parts for name in part.__slots__ if (value := getattr(part, name)) is not None
    ]
    asked = (given.words, given.selected, given.mismatch, given.answers)
    return [*tensors, *(one for one in asked if one is not None)]


@pytest.mark.parametrize("case", CASES)
def test_special_tokens_and_padding_are_never_touched(case):
    _, objective = build("uniter_tiny", case)
    for seed in range(10):
        given = sample(extra=2, seed=seed)
        before = given.inputs
        after = objective.corrupt(given, torch.Generator().manual_seed(seed))
        text, seen = after.inputs.text, after.inputs.regions
        special = torch.isin(text.ids, torch.tensor([PAD, CLS, SEP]))
        assert (text.ids[:, 0] == CLS).all()
        assert (text.ids[~text.mask] == PAD).all()
        last = text.ids.gather(1, text.mask.sum(1, keepdim=True) - 1)
        assert (last == SEP).all()
        assert (special & text.mask).sum(1).eq(3).all()
        if after.words is not None:
            assert (after.words[special] == -1).all()
            assert (after.words[text.mask & (text.ids == MASK)] >= 10).all()
        if after.selected is not None:
            assert not after.selected[~seen.mask].any()
            assert not seen.hidden[~seen.mask].any()
        assert not seen.features[~seen.mask].any()
        assert seen.boxes.shape == before.regions.boxes.shape


@pytest.mark.parametrize("case", sorted(set(CASES) - ASKS_NOTHING))
def test_padding_never_changes_a_loss(case):
    model, objective = build("uniter_tiny", case)
    model.eval()
    corrupted, losses = ask(model, objective, sample())
    if case == "interventions":
        corrupted = replace(corrupted, words=torch.full_like(corrupted.inputs.text.ids, -1))
    widths = {"words": -1, "selected": 0}
    wider = replace(
        corrupted,
        inputs=Inputs(
            text=corrupted.inputs.text.map(lambda one: pad(one, 3)),
            regions=corrupted.inputs.regions.map(lambda one: one if one.shape[1:] == (2,) else pad(one, 3)),
        ),
        regions=None
        if corrupted.regions is None
        else corrupted.regions.map(lambda one: one if one.shape[1:] == (2,) else pad(one, 3)),
        **{
            name: torch.cat([value, torch.full((len(value), 3), fill, dtype=value.dtype)], 1)
            for name, fill in widths.items()
            if (value := getattr(corrupted, name)) is not None
        },
    )
    again = objective(model, model(wider.inputs, reads=objective.reads), wider)
    for part, loss in losses.items():
        torch.testing.assert_close(again[part], loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(TINY) - set(BOTH)))
def test_a_model_without_states_is_refused(name):
    model = getattr(models, name)()
    for case in ("features", "alignment", "interventions"):
        with pytest.raises(ConfigError, match=r"states"):
            CASES[case](model)


@pytest.mark.parametrize("name", BOTH)
def test_all_together_survive_bfloat16(name):
    torch.manual_seed(0)
    model = getattr(models, name)()
    together = ("contrast", "words", "kl", "alignment", "answers", "interventions")
    task = Pretrain(model, objectives={case: CASES[case] for case in together})
    given = sample()
    batch = Batch(ids=tuple("abcde"), inputs=given.inputs, targets=given.targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = task(model, batch, torch.Generator().manual_seed(0))
    exact = task(model, batch, torch.Generator().manual_seed(0))
    assert rough.loss.dtype == torch.float32
    assert (rough.loss - exact.loss).abs() < 0.05 * exact.loss.abs()
