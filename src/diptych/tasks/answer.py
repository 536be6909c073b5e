"""Question answering: one answer out of many, where each may be partly right (VQA, GQA)."""

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
    """Scores all `answers` and predicts the best one.

    Args:
        answers: all possible answers.
        readout: function of the model and the number of pairs (1) that builds the readout.
        head: function of the input width and the number of answers that builds the head.
        loss: `bce` is the binary cross entropy of every answer, summed over answers. `ce` is cross entropy
            against the best known answer, averaged over the examples that have one. `kl` is the divergence
            from the target scores, which are not normalized first.
        keep_scores: whether predictions contain the scores of all answers.
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
        if isinstance(answers, str):
            raise ConfigError(f"task.answers is {answers!r}; expected a list of answers.")
        self.answers = tuple(answers)
        if not answers or len(set(answers)) < len(answers):
            raise ConfigError("task.answers is empty or has duplicates; expected every answer once.")
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
        # The mean over answers times their number is the sum over answers, as in the originals.
        if self.kind == "bce":
            return functional.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]
        if self.kind == "kl":
            return functional.kl_div(logits.log_softmax(-1), targets, reduction="batchmean")
        # Several answers may be right; the best one is the class.
        score, best = targets.max(-1)
        known = score > 0
        each = functional.cross_entropy(logits, best, reduction="none")
        # Not `mean`: a batch whose answers are all unknown would give nan.
        return (each * known).sum() / known.sum().clamp(min=1)

    def decode(self, logits: Float[Tensor, "N C"], batch: Batch) -> Predictions:
        logits = logits.detach().double()
        # For `kl` and `ce` the answers compete, for `bce` they are independent.
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
