import torch

from diptych.models import uniter_tiny
from diptych.tasks import AnswerScores
from diptych.tasks.objectives import Answers, Sample
from diptych.types import Example, Inputs, Pair


def example(target):
    return Example(id="1", pairs=(Pair(image=None, text="x"),), target=target)


def test_targets_are_scores_of_known_answers():
    encode = AnswerScores(("red", "two"), partial=True)
    examples = [example({"two": 0.3, "blue": 1.0}), example("red"), example(None), example({})]
    expected = torch.tensor([[0, 0.3], [1, 0], [0, 0], [0, 0]])
    torch.testing.assert_close(encode(examples), expected)


def test_an_answer_is_drawn_by_its_score():
    scores = torch.tensor([[0.0, 0.9, 0.3], [0, 0, 0], [1, 0, 0]]).repeat(400, 1)
    mismatch = torch.zeros(1200, dtype=torch.int64)
    mismatch[-3:] = 1
    sample = Sample(inputs=Inputs(), targets=scores, mismatch=mismatch)
    objective = Answers(uniter_tiny(), labels=("a", "b", "c"))
    answers = objective.corrupt(sample, torch.Generator().manual_seed(0)).answers
    first, second, third = answers.reshape(-1, 3)[:-1].T
    assert set(first.tolist()) == {1, 2}
    assert abs((first == 1).float().mean() - 0.75) < 0.06
    assert (second == -1).all()
    assert (third == 0).all()
    assert answers[-3:].tolist() == [-1, -1, -1]
    assert objective.corrupt(Sample(inputs=Inputs()), None).answers is None
