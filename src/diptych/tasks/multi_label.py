"""Multi-label classification: any number of labels per example (MAMI, Memotion)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, Pooled, Readout
from diptych.predictions import Predictions
from diptych.tasks.base import Task, build_head
from diptych.types import Batch, Encoding, Example, VisionLanguageModel

SEPARATOR = " | "  # between the labels of an answer


@dataclass(frozen=True)
class LabelScores:
    """Converts targets, `{label: score in [0, 1]}` or names of labels, to scores; other labels have 0."""

    labels: tuple[str, ...]

    def __call__(self, examples: Sequence[Example]) -> Float[Tensor, "N C"] | None:
        if any(example.target is None for example in examples):
            return None
        from diptych.metrics.labels import label_matrix  # imports SciPy, which prediction does not need

        targets, ids = [example.target for example in examples], [example.id for example in examples]
        return torch.from_numpy(label_matrix(targets, self.labels, ids)).float()


class MultiLabel(Task):
    """Predicts each label with a sigmoid. An answer joins the predicted labels by ` | `.

    Args:
        labels: names of the labels.
        pairs: image-text pairs per example.
        readout: function of the model and the number of pairs that builds the readout. The default
            concatenates pooled vectors.
        head: function of the input width and the number of labels that builds the head.
        positive_weights: factor of each label's positive examples in the loss, for rare labels.
        threshold: smallest probability for which a label is predicted.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        labels: Sequence[str],
        pairs: int = 1,
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        positive_weights: Sequence[float] | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.labels, self.pairs, self.threshold = tuple(labels), pairs, threshold
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"task.labels is {self.labels}; expected at least one label, and each once.")
        if positive_weights is not None and len(positive_weights) != len(self.labels):
            raise ConfigError(
                f"task.positive_weights has {len(positive_weights)} numbers for {len(self.labels)} labels; "
                "expected one per label."
            )
        self.targets = LabelScores(self.labels)
        self.readout = readout(model, pairs)
        self.reads = self.readout.reads
        self.head = build_head(head, model, self.readout.dim, len(self.labels))
        weights = None if positive_weights is None else torch.tensor(positive_weights, dtype=torch.float32)
        self.register_buffer("positive_weights", weights, persistent=False)  # not saved

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N C"]:
        logits: Tensor = self.head(self.readout(encoding, batch))
        return logits

    def loss(self, logits: Float[Tensor, "N C"], batch: Batch) -> Float[Tensor, ""]:
        weights = self.get_buffer("positive_weights") if self.positive_weights is not None else None
        loss = partial(
            # On logits, because the logarithm of a sigmoid near 0 or 1 is infinite;
            # single precision also under autocast.
            functional.binary_cross_entropy_with_logits,
            logits.float(),
            batch.target(),
            pos_weight=weights,
        )
        if batch.weights is None:
            return loss()
        # The mean over labels comes first, because weights belong to examples.
        return (loss(reduction="none").mean(-1) * batch.weights).mean()

    def decode(self, logits: Float[Tensor, "N C"], batch: Batch) -> Predictions:
        # In double precision, so that confident scores do not round to ties of 0 and 1.
        scores = logits.detach().double().sigmoid().cpu().numpy()
        predicted = (np.flatnonzero(row >= self.threshold) for row in scores)
        answers = tuple(SEPARATOR.join(self.labels[column] for column in columns) for columns in predicted)
        return Predictions(ids=batch.ids, scores=scores, answers=answers, classes=self.labels, form="labels")

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics.labels import measure_labels

        return measure_labels(predictions, targets, self.labels, threshold=self.threshold)
