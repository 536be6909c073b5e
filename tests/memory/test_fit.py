"""What is learned: how near a case must be, how much it weighs, and that the old is kept."""

import numpy as np
import pytest
from tests.memory.toy import CLASSES, case, memory_of

from diptych.errors import ConfigError
from diptych.memory import fit_memory, recall_all
from diptych.memory.fit import FACTORS, REACHES


def world(seed=0, count=80):
    """Examples on one side of space, whose labels the model knows."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, 8)).astype(np.float32)
    truth = np.arange(count) % 2
    scores = np.where(truth[:, None] == [0, 1], 0.95, 0.05)
    return vectors, scores, truth


def rule(count, seed=1):
    """Examples of a new rule: near each other, far from all others; the model calls them benign."""
    noise = np.random.default_rng(seed).normal(size=(count, 8)) * 0.2
    return (noise + np.eye(8)[3] * 4).astype(np.float32)


def fitted(count, **more):
    vectors, scores, truth = world()
    memory = memory_of(*rule(count).tolist()) if count else memory_of([0.0] * 8).without(["0"])
    how = {"vectors": vectors, "scores": scores, "truth": truth, "split": "dev", "checksum": "x", **more}
    return fit_memory(memory, **how)


@pytest.mark.parametrize("count", [1, 5])
def test_a_rule_is_learned_from_few_cases_and_nothing_old_is_lost(count):
    memory, report = fitted(count)
    assert memory.learned.weight > 0
    assert memory.learned.examples == 80
    unseen = rule(20, seed=2)
    scores = np.tile([[0.95, 0.05]], (20, 1))
    found = [one.scores["hateful"] > 0.5 for one in recall_all(memory, unseen, scores)]
    assert np.mean(found) > 0.9
    vectors, scores, truth = world(seed=5)
    kept = [
        one.scores[CLASSES[label]] > 0.5
        for one, label in zip(recall_all(memory, vectors, scores), truth, strict=True)
    ]
    assert np.mean(kept) >= 0.97
    assert report.split_auroc[1] >= 0.99
    assert report.case_accuracy == (0.0, 1.0)
    assert report.single == ("main",)


def test_cases_that_contradict_the_split_get_no_weight():
    """Half of the split's own benign examples, called hateful: what the model can do is kept."""
    vectors, scores, truth = world()
    twins = vectors[truth == 0] + 0.01
    memory = memory_of(*twins.tolist())
    memory, report = fit_memory(
        memory, vectors=vectors, scores=scores, truth=truth, split="dev", checksum="x", harm=0.0
    )
    spoiled = [
        one.scores["hateful"] > 0.5 for one in recall_all(memory, vectors[truth == 0], scores[truth == 0])
    ]
    assert np.mean(spoiled) == 0
    assert report.cases == 40


def test_an_example_of_the_split_does_not_teach_itself():
    """Every example is its own case with the true label; with a model that knows nothing, none is learned."""
    vectors, _, truth = world()
    scores = np.full((80, 2), 0.5)
    memory = memory_of(*vectors.tolist(), labels=[CLASSES[label] for label in truth])
    memory, report = fit_memory(
        memory, vectors=vectors, scores=scores, truth=truth, split="dev", checksum="x"
    )
    assert report.split_auroc[1] < 0.75


def test_without_cases_the_usual_reach_and_weight_are_set():
    memory, report = fitted(0)
    assert report.cases == 0
    assert report.touched == 0
    assert report.case_loss is None
    vectors = world()[0]
    # One in a hundred pairs of ordinary examples is as near.
    unit = memory.comparable(vectors).numpy()
    pairs = (unit @ unit.T)[np.triu_indices(80, 1)]
    assert np.mean(pairs >= memory.learned.least) == pytest.approx(REACHES[2], abs=0.002)
    assert memory.learned.weight == pytest.approx(FACTORS[4] * np.log(19), rel=1e-6)


def test_a_split_of_one_class_is_refused():
    with pytest.raises(ConfigError, match=r"dev has 80 examples of 1 class"):
        fitted(1, truth=np.zeros(80, np.int64))
    with pytest.raises(ConfigError, match="dev has 80"):
        fitted(1, folds=50)
    assert case("x").policy == "main"
