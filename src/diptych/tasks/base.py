"""Base classes of tasks, and what several tasks share."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.errors import FormatError
from diptych.nn import Readout, initial_std
from diptych.predictions import Predictions
from diptych.types import (
    EVERYTHING,
    Batch,
    Encoding,
    Example,
    Inputs,
    Outcome,
    TargetEncoder,
    VisionLanguageModel,
)

SPACING, FEATURES = 8, 4  # of pixels and of features, by which two images are told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Result of one batch of a validation set; must be picklable, since processes exchange it.

    Args:
        count: number of examples in the batch.
        loss: their mean loss; None if one of them has no target.
        result: input of `Trainable.summarize`: predictions of a task, or losses by name in pre-training.
        finite: whether every number in `result` is finite.
    """

    count: int
    loss: float | None
    result: Any
    finite: bool = True


class Trainable(nn.Module, ABC):
    """A training objective: a loss for each batch, and measures over a validation set.

    The model is an argument of `forward`, not a member, so that checkpoints keep `model.*` and `task.*` apart
    and a trained model can get another task. `reads` names the fields of an encoding that the task uses;
    models need not compute the others.
    """

    targets: TargetEncoder
    reads: frozenset[str] = EVERYTHING
    unread: frozenset[str] = frozenset()
    """Members of the training data whose labels are never read, so that they need none."""
    progress: float = 0.0
    """Share of the training run that is done; the loop sets it before every step."""
    cases: int = 0
    """Number of training examples that `remember` keeps vectors of; 0 for objectives that keep none."""
    refresh: int = 0
    """Steps after which `remember` is called again; 0 is once per epoch."""

    @abstractmethod
    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        """Return the logits, and the loss if the batch has targets.

        Args:
            generator: source of random numbers; pre-training draws how it corrupts a batch.
        """

    @abstractmethod
    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Process one batch of a validation set."""

    def begin(self, model: VisionLanguageModel) -> None:
        """Called once before a run trains, when the weights of the model are loaded."""

    def know(self, ids: Sequence[str]) -> None:
        """Take the ids of all training examples in their order; called for objectives that keep `cases`."""

    def remember(self, model: VisionLanguageModel, batches: Iterable[Batch]) -> None:
        """Look at all training examples in their order, in evaluation mode and without gradients.

        Called for objectives that keep `cases`: before the first step, after every epoch and before every
        validation.
        """

    @abstractmethod
    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        """Compute measures over all parts; the first one selects the best checkpoint."""

    def higher(self, name: str) -> bool:
        """Whether higher values of a measure are better."""
        from diptych.metrics.measures import measure_named  # imports SciPy, which prediction does not need

        return measure_named(name).higher


class Predicting(Trainable):
    """Base of objectives whose predictions are compared with targets: decisions, and generated texts."""

    @abstractmethod
    def predict(self, model: VisionLanguageModel, batch: Batch) -> Predictions:
        """Predict every example of a batch."""

    @abstractmethod
    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        """Compute measures over the examples with a known target; the first selects the best checkpoint."""

    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        return self.measure(Predictions.concat([part.result for part in parts]), targets)


class Task(Predicting):
    """Base of tasks: head, loss, decoding and measures for one form of decision per example.

    A task depends on encodings only, never on the class of the model.
    """

    @abstractmethod
    def score(self, encoding: Encoding, batch: Batch) -> Shaped[Tensor, "N ..."]:
        """Return the logits of every example."""

    @abstractmethod
    def loss(self, logits: Shaped[Tensor, "N ..."], batch: Batch) -> Float[Tensor, ""]:
        """Return the mean loss over the examples of a batch with targets."""

    @abstractmethod
    def decode(self, logits: Shaped[Tensor, "N ..."], batch: Batch) -> Predictions:
        """Convert logits to scores and answers in the labels of the data set."""

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        logits = self.score(model(batch.inputs, reads=self.reads), batch)
        return Outcome(loss=None if batch.targets is None else self.loss(logits, batch), logits=logits)

    def predict(self, model: VisionLanguageModel, batch: Batch) -> Predictions:
        return self.decode(self.score(model(batch.inputs, reads=self.reads), batch), batch)

    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Return loss and predictions of a batch; example weights apply to training only."""
        # A weighted loss of validation could not be compared with that of other runs.
        outcome = self(model, replace(batch, weights=None), generator)
        predictions = self.decode(outcome.logits, batch)
        # `item` waits for the device, which decoding does anyway.
        loss = None if outcome.loss is None else outcome.loss.item()
        return Part(count=len(batch), loss=loss, result=predictions, finite=predictions.finite)


@dataclass(frozen=True)
class AnswerScores:
    """Converts targets, `{answer: score in [0, 1]}` or one right answer, to scores of all `answers`.

    Other answers are ignored, so an example may have zeros only.

    Args:
        answers: the answers of the task, one column each.
        partial: if True, an example without a target has zeros; if False, it makes the whole batch unlabeled.
    """

    answers: tuple[str, ...]
    partial: bool = False
    columns: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The dataclass is frozen, so a derived field needs object.__setattr__.
        object.__setattr__(self, "columns", {answer: number for number, answer in enumerate(self.answers)})

    def __call__(self, examples: Sequence[Example]) -> Float[Tensor, "N C"] | None:
        # A batch has one tensor of targets, so one unlabeled example leaves the whole batch without loss.
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
    """Converts targets to the index of the right pair; with a single pair, to 1 if it is right, else 0."""

    def __call__(self, examples: Sequence[Example]) -> Int[Tensor, " N"] | None:
        if any(example.target is None for example in examples):
            return None
        return torch.tensor([self._index(example) for example in examples])

    def _index(self, example: Example) -> int:
        # A single pair is judged 0 or 1, several pairs are chosen among.
        count = max(2, len(example.pairs))
        try:
            index = operator.index(example.target)  # takes NumPy's whole numbers, but neither 1.0 nor "1"
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
    """Build `head(width, outputs)`, with the model's `std` if the head takes one and none is set.

    For models of published size, both are 0.02. The tiny models start with larger weights, and with a head of
    small weights some of them stayed at chance for epochs.
    """
    # `head` may be a `functools.partial` that already sets std.
    if "std" in getattr(head, "keywords", {}) or "std" not in signature(head).parameters:
        return head(width, outputs)
    build: Callable[..., nn.Module] = head
    return build(width, outputs, std=initial_std(model))


def same_rows(inputs: Inputs) -> Bool[Tensor, "B B"]:
    """Matrix of which rows have the same text or image, so that one cannot be wrong for the other."""
    parts = list[Tensor]()
    # Padding is made equal first, because it may hold anything.
    if (text := inputs.text) is not None:
        parts.append(text.ids.masked_fill(~text.mask, -1))
    if inputs.pixels is not None:
        parts.append(inputs.pixels[..., ::SPACING, ::SPACING].flatten(1))
    elif (regions := inputs.regions) is not None:
        # A grid has the same boxes in all images of one size, so some features are compared, too.
        seen = torch.cat([regions.boxes, regions.features[..., :FEATURES]], -1)
        parts.append(seen.masked_fill(~regions.mask[..., None], -1).flatten(1))
    # Number the distinct rows and compare numbers: comparing all pairs of rows would need B * B * L values.
    numbers = [torch.unique(part, dim=0, return_inverse=True)[1] for part in parts]
    return torch.stack([number[:, None] == number for number in numbers]).any(0)


def exchanged(inputs: Inputs, texts: Int[Tensor, " rows"], images: Int[Tensor, " rows"]) -> Inputs:
    """Rows that combine the text of one row with the image of another."""
    return Inputs(
        text=None if inputs.text is None else inputs.text.map(lambda tensor: tensor[texts]),
        more_texts=tuple(text.map(lambda tensor: tensor[texts]) for text in inputs.more_texts),
        vectors=None if inputs.vectors is None else inputs.vectors[texts],
        regions=None if inputs.regions is None else inputs.regions.map(lambda tensor: tensor[images]),
        pixels=None if inputs.pixels is None else inputs.pixels[images],
    )


def score_pairs(
    readout: Readout, head: nn.Module, encoding: Encoding, batch: Batch
) -> Float[Tensor, "N P C"]:
    """Apply a head to every pair separately; `readout` must be built for one pair."""
    # To the readout, each row is an example of its own.
    rows = replace(batch, pairs=1, targets=None)
    scores: Tensor = batch.group(head(readout(encoding, rows)))
    return scores
