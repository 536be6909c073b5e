from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from diptych.data import Collate, Processor, Sources
from diptych.errors import ConfigError
from diptych.models import uniter_tiny
from diptych.tasks import Part, Pretrain, Task, Trainable
from diptych.tasks.objectives import (
    Alignment,
    Answers,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionFeatures,
    RegionLabels,
    RegionProbabilities,
    WordMasking,
)
from diptych.tasks.pretrain import Measured
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import Example, FeatureMeta, Pair
from diptych.world.language import captions
from diptych.world.render import CLASSES, FEATURE_DIM, detect
from diptych.world.scene import COLORS, new_scene


class Shelf(dict):
    meta = FeatureMeta(feature_dim=FEATURE_DIM, classes=CLASSES, attributes=COLORS)

    def count(self, key):
        return len(self[key])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Captions of scenes, what a detector saw there, the color of the subject as an answer."""
    generator, shelf, examples = np.random.default_rng(0), Shelf(), []
    for number in range(128):
        scene = new_scene(generator, ("warm", "cool")[number % 2])
        found = detect(scene, generator)
        sure = np.eye(len(CLASSES), dtype=np.float32)[found.labels] * 0.9 + 0.1 / len(CLASSES)
        shelf[str(number)] = replace(found, probabilities=sure)
        pair = Pair(image=str(number), text=captions(generator, scene)[0])
        examples.append(Example(id=str(number), pairs=(pair,), target={scene.subject.color: 1.0}))
    vocabulary = tmp_path_factory.mktemp("world") / "vocabulary.txt"
    write_vocabulary(vocabulary, learn_vocabulary([one.pairs[0].text for one in examples], 300))
    processor = Processor(text=WordPiece(vocabulary), regions=True, labels=True)
    return examples, processor, Sources(regions=shelf)


def task_of(model, processor, **options):
    text = processor.text
    special = (text.pad_id, text.cls_id, text.sep_id, text.mask_id)
    predict = {
        "features": partial(RegionFeatures, tied="regions.feature"),
        "labels": partial(RegionLabels, classes=len(CLASSES)),
        "attributes": partial(RegionLabels, classes=len(COLORS), field="attributes", everywhere=False),
        "probabilities": partial(RegionProbabilities, classes=len(CLASSES)),
    }
    objectives = {
        "matching": Matching,
        "words": partial(MaskedText, masking=WordMasking(mask_id=text.mask_id, special=special)),
        "regions": partial(MaskedRegions, predict=predict),
        "answers": partial(Answers, labels=COLORS),
        "alignment": Alignment,
    }
    return Pretrain(model, objectives=objectives, **options)


@pytest.fixture
def small(world):
    """A model, its task with UNITER's manner of drawing, and a batch."""
    examples, processor, sources = world
    torch.manual_seed(0)
    model = uniter_tiny(vocab_size=processor.text.vocab_size, feature_dim=FEATURE_DIM)
    draw = {"matching+alignment": 6, "words": 12, "regions": 2}
    task = task_of(model, processor, draw=draw, weights={"alignment": 0.1})
    return model, task, Collate(processor, sources=sources, targets=task.targets)(examples[:8])


@pytest.mark.slow
def test_pretraining_lowers_every_loss(world):
    examples, processor, sources = world
    torch.manual_seed(0)
    model = uniter_tiny(vocab_size=processor.text.vocab_size, feature_dim=FEATURE_DIM)
    # Matching is a saddle that the others, which are easier, would hold the model on for long.
    weights = {"alignment": 0.3, "regions": 0.05, "answers": 0.3, "words": 0.3}
    task = task_of(model, processor, weights=weights)
    collate = Collate(processor, sources=sources, targets=task.targets)
    batches = [collate(examples[start : start + 64]) for start in (0, 64)]
    optimizer = torch.optim.AdamW([*model.parameters(), *task.parameters()], lr=3e-3)

    def measure():
        task.eval()
        outcomes = [
            task(model, batch, torch.Generator().manual_seed(n)) for n, batch in enumerate(batches * 4)
        ]
        task.train()
        return {name: torch.stack([one.logs[name] for one in outcomes]).mean() for name in outcomes[0].logs}

    before = measure()
    assert tuple(before) == task.parts
    for step in range(200):
        optimizer.zero_grad()
        task(model, batches[step % 2], torch.Generator().manual_seed(1000 + step)).loss.backward()
        optimizer.step()
    after = measure()
    worse = {name: (before[name], after[name]) for name in before if after[name] > before[name] - 0.02}
    assert not worse


def test_a_batch_is_asked_what_was_drawn_for_it(small):
    model, task, batch = small
    counts = {}
    for seed in range(200):
        logs = task(model, batch, torch.Generator().manual_seed(seed)).logs
        counts[tuple(logs)] = counts.get(tuple(logs), 0) + 1
    regions = tuple(f"regions.{part}" for part in ("features", "labels", "attributes", "probabilities"))
    assert set(counts) == {("matching", "alignment"), ("words",), regions}
    assert counts["words",] / 200 == pytest.approx(0.6, abs=0.1)
    assert counts[regions] / 200 == pytest.approx(0.1, abs=0.06)


def test_what_is_asked_depends_on_the_generator_alone(small):
    model, task, batch = small
    for seed in range(5):
        torch.manual_seed(seed)
        first = task(model, batch, torch.Generator().manual_seed(seed))
        torch.manual_seed(seed + 50)
        again = task(model, batch, torch.Generator().manual_seed(seed))
        assert torch.equal(first.loss, again.loss)
        assert first.logs == again.logs


def test_outside_of_training_everything_is_asked_and_measured(small):
    model, task, batch = small
    task.eval()
    outcome = task(model, batch, torch.Generator().manual_seed(0))
    assert set(outcome.logs) == set(task.parts) - {"answers"}
    part = task.validate(model, batch, torch.Generator().manual_seed(0))
    assert (part.count, part.loss, part.finite) == (8, outcome.loss.item(), True)
    metrics = task.summarize([part], {})
    assert next(iter(metrics)) == "loss", "what decides which weights are kept"
    assert metrics["loss"] == pytest.approx(outcome.loss.item(), rel=1e-5)
    assert metrics["words"] == pytest.approx(float(outcome.logs["words"]), rel=1e-5)
    weighted = sum(value * (0.1 if name == "alignment" else 1) for name, value in outcome.logs.items())
    torch.testing.assert_close(outcome.loss, weighted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"word": 1}}, r"'word'; .* 'words'\?"),
        ({"draw": {"words+align": 1}}, r"'align'; .* 'alignment'\?"),
        ({"draw": {"words": 0}}, r"task\.draw .*\{'words': 0\}"),
        ({"draw": {"words": -1, "regions": 2}}, r"task\.draw .*\{'words': -1, 'regions': 2\}"),
    ],
)
def test_settings_that_cannot_work_are_refused(world, options, message):
    processor = world[1]
    with pytest.raises(ConfigError, match=message):
        task_of(
            uniter_tiny(vocab_size=processor.text.vocab_size, feature_dim=FEATURE_DIM), processor, **options
        )


def test_no_objective_is_refused():
    with pytest.raises(ConfigError, match=r" \[\] "):
        Pretrain(uniter_tiny(), objectives={})


def test_measures_are_means_over_examples_and_better_the_lower(small):
    _, task, _ = small
    parts = [
        Part(count=count, loss=1.0, result=Measured(losses=dict.fromkeys(task.parts, value), hits={}))
        for count, value in ((3, 1.0), (1, 5.0))
    ]
    metrics = task.summarize(parts, {})
    assert {metrics[name] for name in task.parts} == {2.0}
    assert metrics["loss"] == pytest.approx(2 * (len(task.parts) - 1) + 0.1 * 2)
    assert not any(task.higher(name) for name in metrics)


def test_a_loss_that_is_not_finite_is_known(small, monkeypatch):
    model, task, batch = small
    monkeypatch.setattr(task, "_losses", lambda *args: {"words": torch.tensor(float("inf"))})
    assert not task.validate(model, batch).finite


def test_pretraining_is_no_form_of_decision():
    assert not issubclass(Pretrain, Task)
    assert issubclass(Pretrain, Trainable)
    assert not hasattr(Pretrain, "decode")


def lxmert_of(world, **options):
    """A model and a task that runs every objective on every batch, and a batch of two sources."""
    examples, processor, sources = world
    model = uniter_tiny(vocab_size=processor.text.vocab_size, feature_dim=FEATURE_DIM)
    task = task_of(model, processor, **options)
    some = [replace(one, group=("vqa", "gqa")[row % 2]) for row, one in enumerate(examples[:32])]
    batch = Collate(processor, sources=sources, targets=task.targets)(some)
    return model, task, batch


def test_right_predictions_are_counted_where_there_are_right_answers(world):
    model, task, batch = lxmert_of(world)
    task.eval()
    part = task.validate(model, batch, torch.Generator().manual_seed(0))
    hits = part.result.hits
    names = {name.split(".accuracy")[0] for name in hits}
    regions = {"regions.labels", "regions.attributes", "regions.probabilities"}
    assert names == {"words", "matching", "answers", *regions}
    assert hits["matching.accuracy"][1] == 32
    answered = [hits[f"answers.accuracy{group}"][1] for group in ("", ".vqa", ".gqa")]
    assert answered[0] == answered[1] + answered[2] < 32, "exchanged texts have no answer"
    metrics = task.summarize([part, part], {})
    assert metrics["matching.accuracy"] == pytest.approx(hits["matching.accuracy"][0] / 32)
    assert task.higher("answers.accuracy.vqa")
    assert not task.higher("answers")


def test_accuracies_are_means_over_predictions_of_parts_that_have_some(small):
    _, task, _ = small
    losses = dict.fromkeys(task.parts, 1.0)
    every = ({"answers.accuracy": (1.5, 2)}, {}, {"answers.accuracy": (0.0, 1)})
    parts = [Part(count=1, loss=1.0, result=Measured(losses=losses, hits=hits)) for hits in every]
    assert task.summarize(parts, {})["answers.accuracy"] == 0.5


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0), (0.49, 0), (0.5, 2), (1.0, 2)])
def test_weights_follow_the_run(world, progress, factor):
    model, task, batch = lxmert_of(world, weights={"answers": [0, 2], "alignment": 0})
    task.train().progress = progress
    outcome = task(model, batch, torch.Generator().manual_seed(0))
    assert ("answers" in outcome.logs) == bool(factor)
    assert "alignment" not in outcome.logs
    weighted = sum(value * (factor if name == "answers" else 1) for name, value in outcome.logs.items())
    torch.testing.assert_close(outcome.loss, weighted)
    outcome.loss.backward()
    head = task.objectives["answers"].head
    assert all((one.grad is None) == (not factor) for one in head.parameters())
    task.eval()
    part = task.validate(model, batch, torch.Generator().manual_seed(0))
    assert task.summarize([part], {})["loss"] == pytest.approx(
        sum({"answers": 2, "alignment": 0}.get(name, 1) * loss for name, loss in part.result.losses.items())
    )


@pytest.mark.parametrize(
    ("names", "kept"),
    [(["obj", "attr", "feat"], ("features", "labels", "attributes")), (["feat"], ("features",)), ([], ())],
)
def test_predictions_of_regions_can_be_switched_off(world, names, kept):
    model, task, batch = lxmert_of(world, visual_losses=names)
    assert task.objectives["regions"].parts == kept
    logs = task(model, batch, torch.Generator().manual_seed(0)).logs
    assert {name for name in logs if name.startswith("regions")} == (
        {f"regions.{name}" for name in kept} if len(kept) > 1 else {"regions"} if kept else set()
    )


@pytest.mark.parametrize(
    ("options", "value"), [({"visual_losses": ["objects"]}, "objects"), ({"weights": {"words": []}}, "words")]
)
def test_visual_losses_and_weights_that_cannot_be_are_refused(world, options, value):
    with pytest.raises(ConfigError, match=value):
        lxmert_of(world, **options)
