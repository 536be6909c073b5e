"""Multiple choice: which pair of an example is right (VCR: a picture and a question with four answers)."""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, Pooled, Readout, init_bert, initial_std
from diptych.predictions import Predictions
from diptych.tasks.base import RightPair, Task, build_head, score_pairs
from diptych.types import Batch, Encoding, Outcome, VisionLanguageModel

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
        object_weight: factor of a second loss in training, by which the state of each region learns the class
            of its object; 1 in VL-BERT. It needs `processor.labels=true` and regions with classes.
        object_classes: number of these classes, without that of the whole picture.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        loss: str = "ce",
        positive_weight: int | float = 1.0,
        object_weight: int | float = 0.0,
        object_classes: int = 81,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ConfigError(f"task.loss is {loss!r}; expected one of {LOSSES}.")
        if not 0 < positive_weight < inf:
            raise ConfigError(f"task.positive_weight is {positive_weight}; expected a number above 0.")
        if not 0 <= object_weight < inf or object_classes < 1:
            raise ConfigError(
                f"task.object_weight is {object_weight} and task.object_classes {object_classes}; expected "
                "numbers from 0 and from 1."
            )
        self.targets = RightPair()
        self.readout = readout(model, 1)
        self.kind, self.positive_weight, self.object_weight = loss, positive_weight, object_weight
        self.head = build_head(head, model, self.readout.dim, 2 if loss == "two_way" else 1)
        self.objects = _object_head(model, object_classes) if object_weight else None
        self.reads = self.readout.reads | ({"regions"} if self.objects is not None else frozenset())

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        # Scores alone decide in validation, whose loss then does not depend on this setting.
        if self.objects is None or batch.targets is None or not self.training:
            return super().forward(model, batch, generator)
        encoding = model(batch.inputs, reads=self.reads)
        logits = self.score(encoding, batch)
        choice, objects = self.loss(logits, batch), self.object_loss(encoding, batch)
        logs = {"choice": choice.detach(), "objects": objects.detach()}
        return Outcome(loss=choice + self.object_weight * objects, logits=logits, logs=logs)

    def object_loss(self, encoding: Encoding, batch: Batch) -> Float[Tensor, ""]:
        """Mean cross entropy of the classes of all regions, in all pairs.

        The whole picture has class 0, and an object of label k the class k + 1.

        Raises:
            ConfigError: the batch has no classes of regions, or more than the head.
        """
        assert batch.inputs.regions is not None and encoding.regions is not None and self.objects is not None
        regions, states = batch.inputs.regions.unshared(), encoding.regions
        if regions.labels is None:
            raise ConfigError(
                "task.object_weight needs regions with classes; set processor.labels=true and use boxes with "
                "classes, such as those of VCR's metadata, or set task.object_weight=0."
            )
        logits = self.objects(states[regions.mask]).float()
        wanted = regions.labels[regions.mask] + 1
        # An index beyond the head fails on a GPU without saying what was wrong.
        if wanted.numel() and int(wanted.max()) >= logits.shape[1]:
            raise ConfigError(
                f"a region has the class {int(wanted.max()) - 1}; expected less than task.object_classes="
                f"{logits.shape[1] - 1}."
            )
        # A batch without regions adds nothing; the mean of nothing would be NaN.
        return functional.cross_entropy(logits, wanted, reduction="sum") / max(1, len(wanted))

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


def _object_head(model: VisionLanguageModel, classes: int) -> nn.Module:
    """VL-BERT's, whose first part has the form of the one that pre-training predicts regions by."""
    width = model.region_dim
    if not width:
        raise ConfigError(f"task.object_weight needs region states; {type(model).__name__} provides none.")
    head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes + 1))
    init_bert(head, std=initial_std(model))
    return head
