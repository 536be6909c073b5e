"""What every form of decision answers for."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from diptych.errors import FormatError
from diptych.nn import Readout, initial_std
from diptych.predictions import Predictions
from diptych.types import EVERYTHING, Batch, Encoding, Example, Outcome, TargetEncoder, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one batch of a validation set leaves behind; travels between processes.

    Args:
        count: number of its examples.
        loss: their mean loss; None where one of them has no target.
        found: what `Trainable.summarize` needs: predictions of a task, losses by name of pre-training.
        finite: whether every number in `found` is finite.
    """

    count: int
    loss: float | None
    found: Any
    finite: bool = True


class Trainable(nn.Module, ABC):
    """What a model can be trained for: a loss for each batch, and measures over a validation set.

    The model is an argument of `forward`, not a member, so that checkpoints keep `model.*` and `task.*` apart
    and a task can be swapped on a trained backbone. `reads` names the fields of an encoding that are looked
    at; models need not compute others.
    """

    targets: TargetEncoder
    reads: frozenset[str] = EVERYTHING

    @abstractmethod
    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        """Logits, and the loss where the batch has targets.

        Args:
            generator: of what is drawn, as pre-training does when it corrupts a batch.
        """

    @abstractmethod
    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Look at one batch of a validation set."""

    @abstractmethod
    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        """Measures over all parts, the one that decides what is best first."""

    def higher(self, name: str) -> bool:
        """Whether more of the measure of this name is better."""
        from diptych.metrics.measures import measure_named  # SciPy comes along, which prediction does without

        return measure_named(name).higher


class Task(Trainable):
    """Head, loss, decoding and measures of one form of decision about every example.

    It sees encodings and never asks which model made them.
    """

    @abstractmethod
    def score(self, encoding: Encoding, batch: Batch) -> Shaped[Tensor, "N ..."]:
        """Logits of every example."""

    @abstractmethod
    def loss(self, logits: Shaped[Tensor, "N ..."], batch: Batch) -> Float[Tensor, ""]:
        """Mean loss over the examples of the batch, which has targets."""

    @abstractmethod
    def decode(self, logits: Shaped[Tensor, "N ..."], batch: Batch) -> Predictions:
        """Scores and answers in the words of the data set."""

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        logits = self.score(model(batch.inputs, reads=self.reads), batch)
        return Outcome(loss=None if batch.targets is None else self.loss(logits, batch), logits=logits)

    def predict(self, model: VisionLanguageModel, batch: Batch) -> Predictions:
        """Decide about every example of a batch; a task that generates or ranks does it in its own way."""
        return self.decode(self.score(model(batch.inputs, reads=self.reads), batch), batch)

    @abstractmethod
    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        """Measures over the examples whose target is known, the one that decides what is best first."""

    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Loss and predictions of a batch; weights of examples are for training and do not count."""
        outcome = self(model, replace(batch, weights=None), generator)
        found = self.decode(outcome.logits, batch)
        loss = None if outcome.loss is None else outcome.loss.item()
        return Part(count=len(batch), loss=loss, found=found, finite=found.finite)

    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        return self.measure(Predictions.concat([part.found for part in parts]), targets)


@dataclass(frozen=True)
class AnswerScores:
    """`{answer: score in [0, 1]}`, or a single right answer, to scores of the known answers.

    An answer that is not known has no column; an example whose answers are all unknown has zeros.

    Args:
        partial: whether an example without a target has zeros too; otherwise nothing of the batch is known.
    """

    answers: tuple[str, ...]
    partial: bool = False
    columns: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", {answer: number for number, answer in enumerate(self.answers)})

    def __call__(self, examples: Sequence[Example]) -> Float[Tensor, "N C"] | None:
        if not self.partial and any(example.target is None for example in examples):
            return None
        scores = torch.zeros(len(examples), len(self.answers))
        for row, example in enumerate(examples):
            for answer, score in _graded(example).items():
                if answer in self.columns:
                    scores[row, self.columns[answer]] = score
        return scores


def _graded(example: Example) -> Mapping[str, int | float]:
    if example.target is None:
        return {}
    target = {example.target: 1.0} if isinstance(example.target, str) else example.target
    if not isinstance(target, Mapping) or not all(0 <= score <= 1 for score in target.values()):
        raise FormatError(
            f"example {example.id} has the target {example.target!r}; expected an answer, or scores "
            "in [0, 1] by answer."
        )
    return target


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


def build_head(
    head: Callable[[int, int], nn.Module], model: VisionLanguageModel, width: int, outputs: int
) -> nn.Module:
    """`head(width, outputs)`; one that takes `std`, and was given none, gets that of the model.

    At sizes that are published both are 0.02. The tiny models begin with larger weights, and a head with
    small ones kept some of them at chance for epochs.
    """
    if "std" in getattr(head, "keywords", {}) or "std" not in signature(head).parameters:
        return head(width, outputs)
    build: Callable[..., nn.Module] = head
    return build(width, outputs, std=initial_std(model))


def score_pairs(
    readout: Readout, head: nn.Module, encoding: Encoding, batch: Batch
) -> Float[Tensor, "N P C"]:
    """What a head makes of every pair by itself; `readout` was built for one pair."""
    rows = replace(batch, pairs=1, targets=None)
    scores: Tensor = batch.group(head(readout(encoding, rows)))
    return scores
