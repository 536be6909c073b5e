"""Several labels of each example, each of which may hold or not (MAMI, Memotion)."""

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
    """`{label: score in [0, 1]}`, or names of the labels that hold, to a row of scores, 0 for all others."""

    labels: tuple[str, ...]

    def __call__(self, examples: Sequence[Example]) -> Float[Tensor, "N C"] | None:
        if any(example.target is None for example in examples):
            return None
        from diptych.metrics.labels import label_matrix  # late, because SciPy comes along

        targets, ids = [example.target for example in examples], [example.id for example in examples]
        return torch.from_numpy(label_matrix(targets, self.labels, ids)).float()


class MultiLabel(Task):
    """A sigmoid for each of `labels`. An answer is the labels from `threshold` on, joined by ` | `.

    Args:
        labels: names of the labels.
        readout: (model, pairs) to the vector that the head reads; by default pooled vectors side by side.
        head: (width, number of labels) to a module.
        pairs: image-text pairs of one example.
        positive_weights: factor of each label in the loss where it holds, for rare labels.
        threshold: probability from which a label is given.
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
            raise ConfigError(f"task.labels is {self.labels}; expected every label once, and one at least.")
        if positive_weights is not None and len(positive_weights) != len(self.labels):
            raise ConfigError(
                f"task.positive_weights has {len(positive_weights)} numbers for {len(self.labels)} labels."
            )
        self.targets = LabelScores(self.labels)
        self.readout = readout(model, pairs)
        self.reads = self.readout.reads
        self.head = build_head(head, model, self.readout.dim, len(self.labels))
        weights = None if positive_weights is None else torch.tensor(positive_weights, dtype=torch.float32)
        self.register_buffer("positive_weights", weights, persistent=False)

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N C"]:
        logits: Tensor = self.head(self.readout(encoding, batch))
        return logits

    def loss(self, logits: Float[Tensor, "N C"], batch: Batch) -> Float[Tensor, ""]:
        weights = self.get_buffer("positive_weights") if self.positive_weights is not None else None
        loss = partial(
            functional.binary_cross_entropy_with_logits, logits.float(), batch.target(), pos_weight=weights
        )
        if batch.weights is None:
            return loss()
        return (loss(reduction="none").mean(-1) * batch.weights).mean()

    def decode(self, logits: Float[Tensor, "N C"], batch: Batch) -> Predictions:
        scores = logits.detach().double().sigmoid().cpu().numpy()
        given = (np.flatnonzero(row >= self.threshold) for row in scores)
        answers = tuple(SEPARATOR.join(self.labels[column] for column in columns) for columns in given)
        return Predictions(ids=batch.ids, scores=scores, answers=answers, classes=self.labels, form="labels")

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics.labels import measure_labels

        return measure_labels(predictions, targets, self.labels, threshold=self.threshold)
