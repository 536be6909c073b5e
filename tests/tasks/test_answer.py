import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError, FormatError
from diptych.tasks import Answer, AnswerScores
from diptych.types import Example, Pair

ANSWERS = ("yes", "no", "red")


def example(target):
    return Example(id="q1", pairs=(Pair(image="a", text="x"),), target=target)


def test_targets_are_scores_and_unknown_answers_have_no_column():
    encode = AnswerScores(ANSWERS)
    given = [example({"no": 0.3, "blue": 1.0}), example("yes"), example("blue"), example({"red": 1})]
    torch.testing.assert_close(encode(given), torch.tensor([[0, 0.3, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]))
    assert encode([*given, example(None)]) is None


@pytest.mark.parametrize("target", [3, {"yes": 1.5}, {"yes": -0.1}])
def test_a_wrong_target_names_the_example(target):
    with pytest.raises(FormatError, match=r"^example q1 .*\[0, 1\]"):
        AnswerScores(ANSWERS)([example(target)])


def test_losses_are_what_they_say(model, batch):
    targets = torch.tensor([[0.3, 1, 0], [0, 0, 0], [0, 0, 0.6], [1, 0, 0]])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    given = batch(targets)
    got = {
        kind: Answer(model, answers=ANSWERS, loss=kind).loss(logits, given) for kind in ("bce", "ce", "kl")
    }
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(got["bce"], each.sum(1).mean())
    known = torch.tensor([0, 2, 3])  # the second example has no known answer
    torch.testing.assert_close(got["ce"], F.cross_entropy(logits[known], torch.tensor([1, 2, 0])))
    entropy = torch.special.entr(targets).sum()
    torch.testing.assert_close(got["kl"], -((targets * logits.log_softmax(-1)).sum() + entropy) / 4)


def test_a_batch_of_unknown_answers_has_a_loss_of_zero(model, batch):
    task = Answer(model, answers=ANSWERS, loss="ce")
    logits = torch.randn(4, 3, requires_grad=True)
    loss = task.loss(logits, batch(torch.zeros(4, 3)))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_the_best_answer_is_given_and_scores_are_kept_when_asked(model, batch):
    logits = torch.tensor([[0.0, 3, 1], [5, 0, 0], [0, 0, 9], [1, 0, 0]])
    predictions = Answer(model, answers=ANSWERS).decode(logits, batch())
    assert predictions.answers == ("no", "yes", "red", "yes")
    assert predictions.scores is predictions.classes is None
    kept = Answer(model, answers=ANSWERS, keep_scores=True).decode(logits, batch())
    assert kept.column("no")[0] == pytest.approx(1 / (1 + 2.718281828**-3))
    shared = Answer(model, answers=ANSWERS, keep_scores=True, loss="ce").decode(logits, batch())
    assert shared.scores.sum(1) == pytest.approx([1, 1, 1, 1])


def test_accuracy_is_the_mean_score_of_the_answers(model, batch):
    task = Answer(model, answers=ANSWERS)
    predictions = task.decode(torch.eye(4, 3), batch())
    gold = {"m0": {"yes": 0.6}, "m1": "no", "m2": {"no": 1.0}, "m3": None}
    assert task.measure(predictions, gold) == {"accuracy": pytest.approx(1.6 / 3)}


@pytest.mark.parametrize("answers", [(), ("yes", "no", "yes")])
def test_answers_are_told_apart(model, answers):
    with pytest.raises(ConfigError, match=r"task\.answers"):
        Answer(model, answers=answers)


def test_a_loss_that_does_not_exist(model):
    with pytest.raises(ConfigError, match=r"task\.loss .*'mse'"):
        Answer(model, answers=ANSWERS, loss="mse")
