"""Multiple choice: which pair of an example is right (VCR: a picture and a question with four answers)."""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, Pooled, Readout
from diptych.predictions import Predictions
from diptych.tasks.base import RightPair, Task, build_head, score_pairs
from diptych.types import Batch, Encoding, VisionLanguageModel

LOSSES = ("bce", "ce", "two_way")


class Choose(Task):
    """Scores every pair and predicts the best one.

    Args:
        readout: function of the model and the number of pairs (1) that builds the readout.
        head: function of the input width and the number of outputs that builds the head; outputs are 1, or 2
            for `two_way`.
        loss: `ce` is cross entropy over the pairs of an example, `bce` the binary cross entropy of each pair.
            `two_way` is UNITER's: each pair is classified as wrong or right, and ranked by the second logit.
        positive_weight: weight w of the right pairs in `bce`; the loss is scaled by (w + 1) / (2 w), as in
            VL-BERT.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        loss: str = "ce",
        positive_weight: int | float = 1.0,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ConfigError(f"task.loss is {loss!r}; expected one of {LOSSES}.")
        if not 0 < positive_weight < inf:
            raise ConfigError(f"task.positive_weight is {positive_weight}; expected a number above 0.")
        self.targets = RightPair()
        self.readout = readout(model, 1)
        self.reads = self.readout.reads
        self.kind, self.positive_weight = loss, positive_weight
        self.head = build_head(head, model, self.readout.dim, 2 if loss == "two_way" else 1)

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N P"] | Float[Tensor, "N P 2"]:
        logits = score_pairs(self.readout, self.head, encoding, batch)
        return logits if self.kind == "two_way" else logits.squeeze(-1)

    def loss(self, logits: Float[Tensor, "N P"] | Float[Tensor, "N P 2"], batch: Batch) -> Float[Tensor, ""]:
        logits, targets = logits.float(), batch.target()
        if self.kind == "ce":
            return functional.cross_entropy(logits, targets)
        right = functional.one_hot(targets, batch.pairs)
        if self.kind == "bce":
            weight = logits.new_tensor(self.positive_weight)
            loss = functional.binary_cross_entropy_with_logits(logits, right.float(), pos_weight=weight)
            # Example: with w = 3, one right and three wrong pairs give the mean of the right loss and the
            # mean wrong loss.
            return loss * (weight + 1) / (2 * weight)
        # Every pair is a row of its own.
        return functional.cross_entropy(logits.flatten(0, 1), right.flatten())

    def decode(self, logits: Float[Tensor, "N P"] | Float[Tensor, "N P 2"], batch: Batch) -> Predictions:
        logits = logits.detach().double()
        # Over the pairs of an example, for all losses: the official files want probabilities of choices.
        scores = (logits[..., 1] if self.kind == "two_way" else logits).softmax(-1).cpu().numpy()
        classes = tuple(map(str, range(batch.pairs)))
        answers = tuple(classes[index] for index in scores.argmax(-1))
        return Predictions(ids=batch.ids, scores=scores, answers=answers, classes=classes, form="choices")

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics import measure_choices

        return measure_choices(predictions, targets)
