"""Every form of decision: it is recognized, and measured on any rows as a table of these rows would be."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from diptych.errors import ConfigError, FormatError
from diptych.evaluate import FORMS, Options, compare, evaluate
from diptych.predictions import Predictions
from diptych.types import Example

COUNT = 60
COLORS = ("red", "green", "blue")
IDS = tuple(f"e{number}" for number in range(COUNT))


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def case(form, seed=0):
    """Predictions that are right more often than not, and the same targets for every seed."""
    gold, generator = np.random.default_rng(0), np.random.default_rng(seed + 1)
    noise = generator.normal(size=(COUNT, 3))
    if form == "boxes":
        corner = gold.uniform(0, 50, (COUNT, 2))
        boxes = np.concatenate([corner, corner + 20], axis=1)
        moved = boxes + generator.normal(0, 4, (COUNT, 1))
        return Predictions(ids=IDS, boxes=moved, answers=IDS, form=form), list(map(list, boxes))
    if form == "labels":
        truth = gold.random((COUNT, 3)) < 0.4
        scores = 1 / (1 + np.exp(-(2 * truth - 1 + noise)))
        given = tuple(" | ".join(np.array(COLORS)[row]) for row in scores >= 0.5)
        targets = [{color: float(one) for color, one in zip(COLORS, row, strict=True)} for row in truth]
        return Predictions(ids=IDS, scores=scores, answers=given, classes=COLORS, form=form), targets
    if form == "translations":
        right = gold.integers(3, size=(COUNT, 8))
        found = np.where(generator.random((COUNT, 8)) < 0.2, 0, right)
        both = ([" ".join(COLORS[one] for one in row) for row in rows] for rows in (found, right))
        texts, targets = both
        return Predictions(ids=IDS, texts=tuple(texts), form=form), targets
    truth = gold.integers(2 if form == "binary" else 3, size=COUNT)
    scores = softmax(1.5 * np.eye(3)[truth] + noise)
    answers = tuple(COLORS[index] for index in scores.argmax(1))
    if form == "binary":
        two = scores[:, :2] / scores[:, :2].sum(1, keepdims=True)
        return Predictions(ids=IDS, scores=two, classes=COLORS[:2]), [COLORS[index] for index in truth]
    if form == "answers":
        graded = [{COLORS[index]: 1.0, COLORS[index - 1]: 0.3} for index in truth]
        return Predictions(ids=IDS, answers=answers, form=form), graded
    if form == "choices":
        return Predictions(ids=IDS, scores=scores, classes=("0", "1", "2"), form=form), truth.tolist()
    return Predictions(ids=IDS, scores=scores, answers=answers, classes=COLORS), [COLORS[i] for i in truth]


def table(form, seed=0):
    predictions, targets = case(form, seed)
    return predictions, dict(zip(predictions.ids, targets, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_measure_of_rows_is_that_of_a_table_of_these_rows(form):
    sets, targets = [case(form, seed)[0] for seed in range(2)], case(form)[1]
    whole = FORMS[form](sets, targets, Options())
    generator = np.random.default_rng(5)
    drawn = [np.concatenate([generator.choice(rows, len(rows)) for rows in whole.strata]) for _ in range(4)]
    numbers = np.stack(drawn)[:, None] + COUNT * np.arange(2)[:, None]
    assert sorted(np.concatenate(whole.strata)) == list(range(COUNT))
    for name, measure in whole.measures.items():
        values = measure(numbers)
        for sample, rows in enumerate(drawn):
            for number, one in enumerate(sets):
                part = FORMS[form]([one.select(rows)], [targets[row] for row in rows], Options())
                assert values[sample, number] == pytest.approx(part.value(name)), name


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_intervals_tables_and_json(form):
    predictions, gold = table(form)
    result = evaluate(predictions, gold, samples=100)
    assert (result.form, result.count) == (form, COUNT)
    for name, one in result.metrics.items():
        assert name == "calibration_error" or one.low <= one.value <= one.high
    assert result.summary().startswith("60 examples")
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["form"] == form
    for columns, rows in result.tables().values():
        assert {len(row) for row in rows} == {len(columns)}
    assert evaluate(predictions, gold, samples=100) == result


@pytest.mark.parametrize("form", FORMS)
def test_two_sets_are_compared_in_every_form(form):
    (first, gold), (second, _) = table(form), table(form, seed=1)
    result = compare(first, second.select(range(COUNT)[::-1]), gold, samples=100)
    for name, one in result.metrics.items():
        values = [evaluate(each, gold, samples=1)[name].value for each in (first, second)]
        assert (one.first, one.second) == pytest.approx(tuple(values))
        assert one.low <= one.high
        assert 0 < one.p <= 1
    same = compare(first, first, gold, samples=50)
    assert {(one.difference, one.low, one.high, one.p) for one in same.metrics.values()} == {(0, 0, 0, 1)}
    json.dumps(result.as_dict(), allow_nan=False)


def test_a_worse_set_is_found_out_in_any_form():
    for form in FORMS:
        predictions, gold = table(form)
        turned = predictions.select(np.roll(np.arange(COUNT), 7))
        worse = evaluate(turned, dict(zip(turned.ids, gold.values(), strict=True)), samples=1)
        name = next(iter(worse.metrics))
        assert worse[name].value < evaluate(predictions, gold, samples=1)[name].value


def test_classes_are_measured_as_scikit_learn_does():
    predictions, gold = table("classes")
    result, truth = evaluate(predictions, gold, samples=10), list(gold.values())
    assert list(result.metrics) == ["accuracy", "macro_f1", "macro_auroc"]
    assert result["macro_f1"].value == pytest.approx(f1_score(truth, predictions.answers, average="macro"))
    indices = [COLORS.index(one) for one in truth]
    peer = roc_auc_score(indices, predictions.scores, multi_class="ovr")
    assert result["macro_auroc"].value == pytest.approx(peer)
    each = f1_score(truth, predictions.answers, average=None, labels=COLORS)
    assert [result.by_class[color]["f1"] for color in COLORS] == pytest.approx(each)
    assert [result.by_class[color]["count"] for color in COLORS] == [truth.count(color) for color in COLORS]
    columns, rows = result.tables()["per class"]
    assert columns == ("class", "examples", "precision", "recall", "F1", "AUROC")
    assert [row[:2] for row in rows] == [(color, str(truth.count(color))) for color in COLORS]


def test_labels_are_measured_as_scikit_learn_does():
    predictions, gold = table("labels")
    truth = np.array([[target[color] for color in COLORS] for target in gold.values()])
    result = evaluate(predictions, gold, samples=10, threshold=0.6)
    decided = predictions.scores >= 0.6
    for average in ("micro", "macro"):
        assert result[f"{average}_f1"].value == pytest.approx(f1_score(truth, decided, average=average))
    assert result["macro_auroc"].value == pytest.approx(roc_auc_score(truth, predictions.scores))
    assert result["auroc_red"].value == pytest.approx(roc_auc_score(truth[:, 0], predictions.scores[:, 0]))
    assert result.threshold == 0.6
    assert list(result.by_class) == list(COLORS)


def test_one_class_against_the_rest_is_binary():
    predictions, gold = table("classes")
    result = evaluate(predictions, gold, positive="blue", samples=10)
    truth = np.array([target == "blue" for target in gold.values()])
    assert (result.form, result.positive, result.positives) == ("binary", "blue", truth.sum())
    assert result["auroc"].value == pytest.approx(roc_auc_score(truth, predictions.column("blue")))


def test_the_positive_class_is_the_second_of_two():
    predictions, gold = table("binary")
    assert evaluate(predictions, gold, samples=5).positive == "green"
    assert evaluate(predictions, gold, positive="red", samples=5).positive == "red"


def test_scores_of_a_single_class_meet_targets_of_0_and_1():
    scores = np.array([[0.9], [0.2], [0.6]])
    predictions = Predictions(ids=("a|1", "a|2", "b|1"), scores=scores, classes=("matches",))
    result = evaluate(predictions, {"a|1": 1, "a|2": 0, "b|1": 1}, samples=5)
    assert (result.form, result["auroc"].value, result["accuracy"].value) == ("binary", 1.0, 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_follows_from_what_is_there(form):
    predictions, gold = table(form)
    silent = Predictions(
        ids=predictions.ids,
        scores=predictions.scores,
        answers=predictions.answers,
        boxes=predictions.boxes,
        texts=predictions.texts,
        classes=predictions.classes,
    )
    assert evaluate(silent, gold, samples=1).form == form


def test_the_form_can_be_said():
    predictions, gold = table("choices")
    assert evaluate(predictions, gold, form="classes", samples=1).form == "classes"
    with pytest.raises(ConfigError, match=r"'clsses'; .* 'classes'\?"):
        evaluate(predictions, gold, form="clsses")
    with pytest.raises(FormatError, match=r"^predictions: "):
        evaluate(Predictions(ids=("a",)), {"a": "x"})


def test_soft_targets_of_classes_count_as_the_most_probable_one():
    predictions, gold = table("classes")
    soft = {key: {color: 0.8 if color == target else 0.1 for color in COLORS} for key, target in gold.items()}
    assert evaluate(predictions, soft, samples=5) == evaluate(predictions, gold, samples=5)


@pytest.mark.parametrize("form", FORMS)
def test_the_main_measure_stands_for_each_group(form):
    predictions, gold = table(form)
    groups = {key: ("north", "south", None)[row % 3] for row, key in enumerate(gold)}
    result = evaluate(predictions, gold, groups=groups, samples=50)
    main = next(iter(result.metrics))
    assert list(result.by_group) == ["north", "south"]
    for group, one in result.by_group.items():
        rows = [row for row, key in enumerate(predictions.ids) if groups[key] == group]
        part = predictions.select(rows)
        alone = evaluate(part, {key: gold[key] for key in part.ids}, form=form, samples=50)
        assert (one.value, one.low, one.high, one.count) == (
            alone[main].value, alone[main].low, alone[main].high, len(rows)
        )  # fmt: skip
    columns, rows = list(result.tables().values())[-1]
    assert columns[:2] == ("group", "examples")
    assert [row[:2] for row in rows] == [("north", "20"), ("south", "20")]


def test_groups_come_with_the_examples_of_a_data_set():
    predictions, gold = table("binary")

    class Listed(list):
        def write(self, predictions, path):
            raise AssertionError("these tests write no submission")

    examples = Listed(
        Example(id=key, pairs=(), target=target, group="even" if row % 2 == 0 else "odd")
        for row, (key, target) in enumerate(gold.items())
    )
    result = evaluate(predictions, examples, samples=5)
    assert {group: one.count for group, one in result.by_group.items()} == {"even": 30, "odd": 30}


@pytest.mark.parametrize(
    ("form", "target"),
    [("classes", "violet"), ("labels", {"violet": 1.0}), ("labels", 3), ("answers", 3), ("choices", 7),
     ("choices", "0"), ("boxes", [1, 2]), ("boxes", "left"), ("binary", 2), ("translations", 3)],
)  # fmt: skip
def test_a_target_of_another_form_is_one_error(form, target):
    predictions, gold = table(form)
    with pytest.raises(FormatError):
        evaluate(predictions, gold | {"e3": target}, form=form, samples=1)


def test_resamples_without_a_rare_label_are_left_out_of_its_interval():
    predictions, gold = table("labels")
    rare = {key: {**target, "red": 0.0} for key, target in gold.items()} | {"e0": {"red": 1.0}}
    one = evaluate(predictions, rare, samples=200)["auroc_red"]
    assert one.low <= one.value <= one.high
    never = evaluate(predictions, rare | {"e0": {}}, samples=20)
    assert np.isnan([never["auroc_red"].value, never["auroc_red"].low]).all()
    assert not np.isnan(never["macro_auroc"].value)
