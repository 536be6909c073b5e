"""Classification: one label per example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError, FormatError, nearest
from diptych.nn import ClassifierHead, Pooled, PromptHead, Readout
from diptych.predictions import Predictions, likeliest
from diptych.tasks.base import Task, build_head
from diptych.types import Batch, Encoding, Example, VisionLanguageModel


@dataclass(frozen=True)
class ClassIndex:
    """Converts label names to indices. It is pickled for data workers, so it holds names only.

    If any example of the batch has a soft label, `{label: probability}`, all get rows of probabilities.
    """

    labels: tuple[str, ...]

    def __call__(self, examples: Sequence[Example]) -> Int[Tensor, " N"] | Float[Tensor, "N C"] | None:
        # `Batch.targets` None: test splits are decoded without a loss.
        if any(example.target is None for example in examples):
            return None
        # Indices where possible: cross entropy on indices needs no row of probabilities per example.
        if not any(isinstance(example.target, Mapping) for example in examples):
            return torch.tensor([self._index(example, example.target) for example in examples])
        rows = torch.zeros(len(examples), len(self.labels))
        for row, example in zip(rows, examples, strict=True):
            soft = example.target if isinstance(example.target, Mapping) else {example.target: 1.0}
            for label, share in soft.items():
                row[self._index(example, label)] = share
            # The tolerance is for probabilities that are rounded in files.
            if bool((row < 0).any()) or abs(float(row.sum()) - 1) > 1e-3:
                raise FormatError(
                    f"example {example.id} has the target {example.target!r}; expected probabilities of "
                    "classes with the sum 1."
                )
        return rows

    def _index(self, example: Example, label: Any) -> int:
        if label not in self.labels:
            hint = nearest(str(label), self.labels)
            raise FormatError(
                f"example {example.id} has the label {label!r}; expected one of {self.labels}.{hint}"
            )
        return self.labels.index(label)


class Classify(Task):
    """Softmax over `labels`: Hateful Memes with one pair, NLVR2 with two.

    Args:
        labels: class names. With two labels, the second is the positive class.
        pairs: image-text pairs per example.
        readout: function of the model and the number of pairs that builds the readout. The default
            concatenates pooled vectors.
        head: function of the input width and the number of classes that builds the head.
        class_weights: factor of each class in the loss; as in torch, the mean is weighted, too.
        label_smoothing: probability mass spread over all classes, in [0, 1).
        threshold: with two labels, the smallest probability for which the answer is the positive class.
        loss: `ce` is cross entropy on logits. `softmax_ce` reproduces DrivenData's and nav13n's double
            softmax: cross entropy on probabilities, which for two classes stays within [0.3133, 1.3133].
            `bce` is ERNIE-ViL's loss for two labels: the head scores the second label only. The first has the
            logit 0, so cross entropy equals the binary cross entropy of a sigmoid.
        batch_auroc: batch size of nav13n's metric, the mean AUROC of batches in file order. If set, this
            metric selects the best checkpoint; the exact AUROC is reported as well.
        soft_targets: for the settings of a run only: a prediction file of the training examples whose
            probabilities are the targets of training (distillation).
        soft_share: share of these probabilities in a target; the rest is on the example's own label.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        labels: Sequence[str],
        pairs: int = 1,
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        threshold: float = 0.5,
        loss: str = "ce",
        batch_auroc: int | None = None,
        soft_targets: str | None = None,
        soft_share: int | float = 1.0,
    ) -> None:
        super().__init__()
        if soft_targets is not None:
            raise ConfigError(
                f"task.soft_targets is {soft_targets!r} of a built task; a run turns it into targets before."
            )
        self.labels = tuple(labels)
        self.pairs = pairs
        self.targets = ClassIndex(self.labels)
        self.readout = readout(model, pairs)
        self.reads = self.readout.reads
        self.one_logit = loss == "bce"
        if self.one_logit and len(self.labels) != 2:
            raise ConfigError(f"task.loss is 'bce' for the labels {self.labels}; expected two labels.")
        self.head = build_head(head, model, self.readout.dim, 1 if self.one_logit else len(self.labels))
        if class_weights is not None and len(class_weights) != len(self.labels):
            raise ConfigError(
                f"task.class_weights has {len(class_weights)} numbers for the labels {self.labels}; "
                "expected one number per label."
            )
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing is {label_smoothing}; expected at least 0 and below 1.")
        if loss not in ("bce", "ce", "softmax_ce"):
            raise ConfigError(f"task.loss is {loss!r}; expected 'bce', 'ce' or 'softmax_ce'.")
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)  # a setting, so not saved
        self.label_smoothing = label_smoothing
        self.threshold = threshold
        self.double_softmax = loss == "softmax_ce"
        self.batch_auroc = batch_auroc

    def begin(self, model: VisionLanguageModel) -> None:
        if isinstance(self.head, PromptHead):
            self.head.begin(model)

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N C"]:
        return self.both_logits(self.head(self.readout(encoding, batch)))

    def both_logits(self, logits: Float[Tensor, "N H"]) -> Float[Tensor, "N C"]:
        """The logits of all labels from the outputs of a head."""
        # With `bce` the first label has the logit 0, so the rest of the task sees two classes as usual.
        return torch.cat([torch.zeros_like(logits), logits], -1) if self.one_logit else logits

    def loss(self, logits: Float[Tensor, "N C"], batch: Batch) -> Float[Tensor, ""]:
        # In single precision also under autocast: a loss in half precision loses small probabilities.
        logits, targets = logits.float(), batch.target()
        if self.double_softmax:
            # A quirk of two originals: the loss applies its own softmax to these probabilities once more.
            logits = logits.softmax(-1)
        weights = self.get_buffer("class_weights") if self.class_weights is not None else None
        loss = partial(
            functional.cross_entropy,
            logits,
            targets,
            weight=weights,
            label_smoothing=self.label_smoothing,
        )
        if batch.weights is None:
            return loss()
        # torch divides by the sum of class weights for hard labels, but by the number of rows for soft ones.
        hard = weights is not None and targets.ndim == 1
        total = weights[targets].sum() if hard else len(logits)
        return (loss(reduction="none") * batch.weights).sum() / total

    def decode(self, logits: Float[Tensor, "N C"], batch: Batch) -> Predictions:
        # In single precision, confident scores round to exactly 0 or 1, and such ties change the AUROC.
        scores = logits.detach().double().softmax(-1).cpu().numpy()
        binary = len(self.labels) == 2
        # At 0.5 exactly the answer is the positive class, as in `read_scores` and the official labels.
        choice = (scores[:, 1] >= self.threshold).astype(int) if binary else scores.argmax(-1)
        answers = tuple(self.labels[index] for index in choice)
        return Predictions(ids=batch.ids, scores=scores, answers=answers, classes=self.labels)

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        # Imported here because SciPy takes most of a second to import, and prediction does not need it.
        from diptych.metrics import batch_mean_auroc, measure_classes

        metrics = measure_classes(predictions, targets, self.labels)
        if self.batch_auroc is None or not metrics:
            return metrics
        known = [key for key, target in targets.items() if target is not None]  # in file order
        truth = np.array([likeliest(targets[key]) == self.labels[1] for key in known])
        # Validation goes from long to short examples, but this metric depends on the order of the file.
        position = {key: row for row, key in enumerate(predictions.ids)}
        scores = predictions.column(self.labels[1])[[position[key] for key in known]]
        return {"auroc_batch_mean": batch_mean_auroc(truth, scores, self.batch_auroc), **metrics}
