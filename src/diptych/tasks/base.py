"""What every form of decision answers for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diptych.predictions import Predictions
from diptych.types import EVERYTHING, Batch, Encoding, Outcome, TargetEncoder, VisionLanguageModel


class Task(nn.Module, ABC):
    """Head, loss, decoding and metric of one form of decision.

    It sees encodings and never asks which model made them. The model is an argument of `forward`, not a
    member, so that checkpoints keep `model.*` and `task.*` apart and a task can be swapped on a trained
    backbone. `reads` names the fields of an encoding that `score` looks at; models need not compute others.
    """

    targets: TargetEncoder
    reads: frozenset[str] = EVERYTHING

    @abstractmethod
    def score(self, encoding: Encoding, batch: Batch) -> Shaped[Tensor, "N ..."]:
        """Logits of every example."""

    @abstractmethod
    def loss(self, logits: Shaped[Tensor, "N ..."], batch: Batch) -> Float[Tensor, ""]:
        """Mean loss over the examples of the batch, which has targets."""

    @abstractmethod
    def decode(self, logits: Shaped[Tensor, "N ..."], batch: Batch) -> Predictions:
        """Scores and answers in the words of the data set."""

    @abstractmethod
    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        """Metrics over the examples whose target is known, the monitored one first (higher is better)."""

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        """Encode, score, and the loss where the batch has targets.

        Args:
            generator: of what a task draws, as pre-training does when it corrupts a batch.
        """
        logits = self.score(model(batch.inputs, reads=self.reads), batch)
        return Outcome(loss=None if batch.targets is None else self.loss(logits, batch), logits=logits)
