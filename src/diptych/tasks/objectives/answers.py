"""Question answering as a pre-training objective (LXMERT)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diptych.nn import ClassifierHead, initial_std
from diptych.tasks.base import AnswerScores
from diptych.tasks.objectives.base import Grades, Objective, Sample, average, zero_loss
from diptych.types import Encoding, VisionLanguageModel


class Answers(Objective):
    """Predicts the answer if the text is a question; mean cross entropy over the rows with an answer.

    If a question has several answers, one is drawn for each batch with a probability proportional to its
    score. Mismatched pairs have no answer.

    Args:
        labels: all answers; LXMERT has 9,500.
    """

    reads = frozenset({"pooled"})
    parts = ("answers",)

    def __init__(self, model: VisionLanguageModel, *, labels: Sequence[str]) -> None:
        super().__init__()
        self.targets = AnswerScores(tuple(labels), partial=True)
        self.head = ClassifierHead(model.dim, len(labels), layers=2, std=initial_std(model))

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        scores, intact = sample.targets, sample.intact()
        if scores is None:
            return sample
        # Captions, and questions whose answers the table lacks.
        known = scores.sum(1) > 0
        # Rows without an answer get equal weights, because multinomial() rejects rows of zeros.
        drawn = torch.multinomial(torch.where(known[:, None], scores, 1.0), 1, generator=generator)[:, 0]
        return sample.ask(answers=torch.where(known if intact is None else known & intact, drawn, -1))

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        assert encoding.pooled is not None
        if sample.answers is None:
            return {"answers": zero_loss(encoding.pooled)}
        # A mismatched question has no right answer, so it is not asked.
        predicted = sample.answers >= 0
        scores = self.head(encoding.pooled[predicted]).float()
        losses = functional.cross_entropy(scores, sample.answers[predicted], reduction="none")
        return {"answers": average(losses, predicted[:, None])}  # one position per row

    def grade(self, model: VisionLanguageModel, encoding: Encoding, sample: Sample) -> dict[str, Grades]:
        """The score of the best answer. Mismatched pairs do not count, though LXMERT's logs count them."""
        if sample.answers is None or sample.targets is None:
            return {}
        assert encoding.pooled is not None
        rows = (sample.answers >= 0).nonzero()[:, 0]
        best = self.head(encoding.pooled[rows]).argmax(-1)
        return {"answers": Grades(sample.targets[rows, best].float(), rows)}
