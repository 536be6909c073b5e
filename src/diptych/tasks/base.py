"""What every form of decision answers for."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from diptych.errors import FormatError
from diptych.nn import Readout
from diptych.predictions import Predictions
from diptych.types import EVERYTHING, Batch, Encoding, Example, Outcome, TargetEncoder, VisionLanguageModel


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


@dataclass(frozen=True)
class RightPair:
    """Index of the right pair of each example; of an example with one pair, whether it is right."""

    def __call__(self, examples: Sequence[Example]) -> Int[Tensor, " N"] | None:
        if any(example.target is None for example in examples):
            return None
        return torch.tensor([self._index(example) for example in examples])

    def _index(self, example: Example) -> int:
        count = max(2, len(example.pairs))
        try:
            index = operator.index(example.target)
        except TypeError:
            index = -1
        if not 0 <= index < count:
            raise FormatError(
                f"example {example.id} has the target {example.target!r}; expected a whole number "
                f"below {count}."
            )
        return index


def score_pairs(
    readout: Readout, head: nn.Module, encoding: Encoding, batch: Batch
) -> Float[Tensor, "N P C"]:
    """What a head makes of every pair by itself; `readout` was built for one pair."""
    rows = replace(batch, pairs=1, targets=None)
    scores: Tensor = batch.group(head(readout(encoding, rows)))
    return scores
