"""What every form of decision promises, with every region model. A form is tested by being exported."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import diptych
from diptych import models, tasks
from diptych.evaluate import evaluate
from diptych.predictions import Predictions
from diptych.recipe.call import call
from diptych.tasks import Task
from diptych.types import Batch, Example, Inputs, PaddedRegions, PaddedText, Pair

TINY = [name for name in models.__all__ if name.endswith("_tiny")]
REGION_MODELS = [name for name in TINY if "regions" in getattr(models, name)().needs]
LABELS = ("benign", "hateful")
# of every form: what its configuration leaves open, the pairs of an example, and targets that differ
FORMS = {
    "Answer": ({"answers": ["yes", "no", "red"]}, 1, ["yes", {"no": 0.3, "red": 1.0}]),
    "Choose": ({}, 3, [2, 0]),
    "Classify": ({"labels": LABELS}, 1, ["hateful", "benign"]),
    "Ground": ({}, 1, [[0, 0, 100, 80], [10, 10, 60, 60]]),
    "Match": ({}, 1, [1, 0]),
    "MultiLabel": ({"labels": ["rude", "cruel"]}, 1, [{"rude": 1.0}, {"rude": 0.2, "cruel": 0.9}]),
}
COMBINED = [(form, model) for form in FORMS for model in REGION_MODELS]
# of every form of Classify for dual encoders: what its configuration leaves open
SMALL = {"labels": LABELS, "dim": 48, "layers": 1}
DUAL = {"HateClipper": SMALL, "MemeClip": SMALL, "Rgcl": {**SMALL, "width": 24, "cases": 5}}


def test_every_form_is_here():
    forms = {name for name in tasks.__all__ if isinstance(one := getattr(tasks, name), type)
             and issubclass(one, Task) and one is not Task}  # fmt: skip
    # The objectives of pre-training have a contract of their own, FixMatch, of pixels, its tests.
    assert forms == FORMS.keys() | DUAL.keys() | {"FixMatch"}


def build(form, model):
    """A task with the settings of its own configuration."""
    name = re.sub("(?<!^)(?=[A-Z])", "_", form).lower()
    path = f"{diptych.__path__[0]}/conf/task/{name}.yaml"
    torch.manual_seed(0)
    backbone = getattr(models, model)().eval()
    node = OmegaConf.merge(OmegaConf.load(path), DUAL[form] if form in DUAL else FORMS[form][0])
    return backbone, call(OmegaConf.to_container(node), model=backbone).eval()


def batch(task, form, *, labeled=True):
    _, pairs, targets = FORMS["Classify" if form in DUAL else form]
    pair = Pair(image="a", text="x")
    examples = [
        Example(id=f"e{number}", pairs=(pair,) * pairs, target=target if labeled else None)
        for number, target in enumerate(targets)
    ]
    rows, generator = len(targets) * pairs, torch.Generator().manual_seed(0)
    corners = torch.rand(rows, 4, 4, generator=generator).sort(-1).values
    ids = torch.randint(5, 99, (rows, 6), generator=generator)
    inputs = Inputs(
        pixels=torch.randn(rows, 3, 24, 24, generator=generator) if form in DUAL else None,
        text=PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids)),
        regions=PaddedRegions(
            features=torch.randn(rows, 4, 64, generator=generator),
            boxes=corners,
            mask=torch.arange(4) < 2 + torch.arange(rows)[:, None] % 3,
            image_index=torch.zeros(rows, 4, dtype=torch.int64),
            sizes=torch.tensor([[100.0, 80.0]]).expand(rows, 2),
        ),
    )
    return Batch(
        ids=tuple(example.id for example in examples),
        inputs=inputs,
        targets=task.targets(examples),
        pairs=pairs,
    )


@pytest.mark.parametrize(("form", "model"), COMBINED)
def test_heads_begin_as_the_model_does(form, model):
    """The originals draw a head with the model's standard deviation; smaller heads learn later, or not."""
    backbone, task = build(form, model)
    words = backbone.word_embedding().weight.std().item()
    for part in task.modules():
        if isinstance(part, torch.nn.Linear):
            assert part.weight.std().item() == pytest.approx(words, rel=0.5)
            assert not part.bias.any()


@pytest.mark.parametrize(("form", "model"), COMBINED)
def test_a_step_trains_the_head_and_what_it_reads(form, model):
    backbone, task = build(form, model)
    outcome = task(backbone, batch(task, form))
    assert outcome.loss.isfinite()
    outcome.loss.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in task.parameters())
    assert any(one.grad is not None and one.grad.any() for one in backbone.parameters())


@pytest.mark.parametrize(("form", "model"), COMBINED)
def test_without_targets_there_is_no_loss_but_a_prediction(form, model, tmp_path):
    backbone, task = build(form, model)
    given = batch(task, form, labeled=False)
    assert given.targets is None
    with torch.no_grad():
        outcome, predictions = task(backbone, given), task.predict(backbone, given)
    assert outcome.loss is None
    assert predictions.ids == given.ids
    assert predictions.answers == task.decode(outcome.logits, given).answers
    assert len(predictions.answers) == len(given)
    assert predictions.scores is None or np.isfinite(predictions.scores).all()
    predictions.save(tmp_path / "predictions.npz")
    again = Predictions.load(tmp_path / "predictions.npz").align(given.ids[::-1])
    assert again.answers == predictions.answers[::-1]
    assert Predictions.concat([predictions, again]).unique().ids == given.ids


@pytest.mark.parametrize("form", FORMS)
def test_only_what_is_read_matters(form):
    backbone, task = build(form, "uniter_tiny")
    given = batch(task, form)
    encoding = backbone(given.inputs)
    unread = {name: None for name in ("text", "regions") if name not in task.reads}
    if "pooled" not in task.reads:
        unread["pooled"] = torch.zeros_like(encoding.pooled)
    assert task.reads <= {"pooled", "text", "regions"}
    assert torch.equal(task.score(replace(encoding, **unread), given), task.score(encoding, given))


@pytest.mark.parametrize("form", FORMS)
def test_scores_of_an_example_do_not_depend_on_its_batch(form):
    backbone, task = build(form, "uniter_tiny")
    given = batch(task, form, labeled=False)
    alone = replace(given, ids=given.ids[1:], inputs=given.inputs.map(lambda one: one[given.pairs :]))
    both = task(backbone, given).logits
    torch.testing.assert_close(task(backbone, alone).logits, both[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_predictions_are_measured_and_unlabeled_ones_left_out(form):
    backbone, task = build(form, "uniter_tiny")
    given = batch(task, form)
    predictions = task.decode(task(backbone, given).logits, given)
    gold = dict(zip(given.ids, FORMS[form][2], strict=True))
    measured = task.measure(predictions, gold)
    assert measured
    assert all(0 <= value <= 1 for value in measured.values())
    assert task.measure(predictions, dict.fromkeys(given.ids)) == {}
    assert all(task.higher(name) for name in measured)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_measured_in_training_is_what_evaluate_says_of_a_file(form, tmp_path):
    backbone, task = build(form, "uniter_tiny")
    given = batch(task, form)
    task.predict(backbone, given).save(tmp_path / "predictions.npz")
    gold = dict(zip(given.ids, FORMS[form][2], strict=True))
    result = evaluate(Predictions.load(tmp_path / "predictions.npz"), gold, samples=10)
    part = task.validate(backbone, given)
    assert (part.count, part.finite) == (len(given), True)
    assert part.loss == task(backbone, given).loss.item()
    measured = task.summarize([part], gold)
    shared = {name: result[name].value for name in measured if name in result.metrics}
    assert next(iter(measured)) == next(iter(result.metrics))
    assert shared == pytest.approx({name: measured[name] for name in shared}, nan_ok=True)


@pytest.mark.parametrize("form", ["Classify", "MultiLabel"])
def test_weights_of_examples_are_factors_of_their_losses(form):
    backbone, task = build(form, "uniter_tiny")
    given = batch(task, form)

    def loss(*weights):
        return task(backbone, replace(given, weights=torch.tensor(weights) if weights else None)).loss.item()

    assert loss(1.0, 1.0) == pytest.approx(loss())
    assert loss(3.0, 0.0) + loss(0.0, 3.0) == pytest.approx(3 * loss())
    assert loss(3.0, 0.0) != pytest.approx(loss(0.0, 3.0))
    weighted = replace(given, weights=torch.tensor([3.0, 0.0]))
    assert task.validate(backbone, weighted).loss == pytest.approx(loss()), "validation weighs all alike"


@pytest.mark.parametrize("form", DUAL)
def test_heads_of_dual_encoders_promise_the_same(form, tmp_path):
    backbone, task = build(form, "clip_tiny")
    given = batch(task, form)
    outcome = task.train()(backbone, given)
    outcome.loss.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in task.parameters())
    assert any(one.grad is not None and one.grad.any() for one in backbone.parameters())
    task.eval()
    blind = replace(given, targets=None)
    assert task(backbone, blind).loss is None
    predictions = task.predict(backbone, blind)
    assert predictions.answers == task.decode(task(backbone, blind).logits, blind).answers
    alone = replace(blind, ids=given.ids[1:], inputs=given.inputs.map(lambda one: one[1:]))
    both = task(backbone, blind).logits
    torch.testing.assert_close(task(backbone, alone).logits, both[1:], atol=1e-5, rtol=1e-5)
    part = task.validate(backbone, given)
    gold = dict(zip(given.ids, FORMS["Classify"][2], strict=True))
    assert task.summarize([part], gold).keys() >= {"auroc", "accuracy"}
