"""One answer out of many, each of which may be right to a degree (VQA, GQA)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, Pooled, Readout
from diptych.predictions import Predictions
from diptych.tasks.base import AnswerScores, Task, build_head
from diptych.types import Batch, Encoding, VisionLanguageModel

LOSSES = ("bce", "ce", "kl")


class Answer(Task):
    """Scores of `answers`; the best one is given.

    Args:
        answers: all that can be given.
        readout: (model, 1) to the vector that the head reads.
        head: (width, number of answers) to a module.
        loss: `bce` is binary cross entropy of every answer, summed over answers; `ce` cross entropy against
            the best known answer, in the mean over the examples that have one; `kl` the divergence from all
            scores as they are.
        keep_scores: whether predictions hold the scores of all answers beside the best answer.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        answers: Sequence[str],
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        loss: str = "bce",
        keep_scores: bool = False,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ConfigError(f"task.loss is {loss!r}; expected one of {LOSSES}.")
        self.answers = tuple(answers)
        if not answers or len(set(answers)) < len(answers):
            raise ConfigError("task.answers is empty or names an answer twice; expected every answer once.")
        self.targets = AnswerScores(self.answers)
        self.readout = readout(model, 1)
        self.reads = self.readout.reads
        self.head = build_head(head, model, self.readout.dim, len(self.answers))
        self.kind, self.keep_scores = loss, keep_scores

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N C"]:
        logits: Tensor = self.head(self.readout(encoding, batch))
        return logits

    def loss(self, logits: Float[Tensor, "N C"], batch: Batch) -> Float[Tensor, ""]:
        logits, targets = logits.float(), batch.target()
        if self.kind == "bce":
            return functional.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]
        if self.kind == "kl":
            return functional.kl_div(logits.log_softmax(-1), targets, reduction="batchmean")
        score, best = targets.max(-1)
        known = score > 0
        each = functional.cross_entropy(logits, best, reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def decode(self, logits: Float[Tensor, "N C"], batch: Batch) -> Predictions:
        logits = logits.detach().double()
        scores = logits.sigmoid() if self.kind == "bce" else logits.softmax(-1)
        return Predictions(
            ids=batch.ids,
            scores=scores.cpu().numpy() if self.keep_scores else None,
            answers=tuple(self.answers[index] for index in logits.argmax(-1).tolist()),
            classes=self.answers if self.keep_scores else None,
            form="answers",
        )

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics import measure_answers

        return measure_answers(predictions, targets)
