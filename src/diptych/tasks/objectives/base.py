"""Base class of pre-training objectives, and what several of them share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn import init_bert
from diptych.types import Encoding, Inputs, PaddedRegions, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A batch during corruption: the inputs of the model, and the labels of the objectives.

    A label is None until an objective sets it. Data with labels of their own can set them before.

    Args:
        inputs: inputs of the model, as corrupted so far.
        regions: the regions before any was hidden.
        words: label of each token, its id before masking; -1 for tokens that are not predicted.
        selected: mask of the regions that are predicted, hidden or not.
        mismatch: label of each pair: 0 if it matches, 1 if its text, image or second text comes from another
            row, 2 if its first text does.
        answers: index of the answer; -1 for rows without one.
        targets: targets of the batch.
    """

    inputs: Inputs
    regions: PaddedRegions | None = None
    words: Int[Tensor, "B T"] | None = None
    selected: Bool[Tensor, "B R"] | None = None
    mismatch: Int[Tensor, " B"] | None = None
    answers: Int[Tensor, " B"] | None = None
    targets: Shaped[Tensor, "N ..."] | None = None

    def ask(self, inputs: Inputs | None = None, **labels: Any) -> "Sample":
        """Return a copy with other inputs and additional labels.

        Raises:
            ConfigError: another objective has set one of the labels already.
        """
        # The later objective would train on labels that do not fit its inputs.
        if double := [name for name in labels if getattr(self, name) is not None]:
            raise ConfigError(
                f"two objectives of one batch set {double[0]}; draw them alternately with task.draw, or "
                "combine their predictions in one objective."
            )
        return replace(self, inputs=self.inputs if inputs is None else inputs, **labels)

    def intact(self) -> Bool[Tensor, " B"] | None:
        """Return the mask of rows whose text and image match; None if all do."""
        return None if self.mismatch is None else self.mismatch == 0


class Grades(NamedTuple):
    """How right each of M predictions is, from 0 to 1, and the row of the batch that it belongs to."""

    scores: Float[Tensor, " M"]
    rows: Int[Tensor, " M"]


class Objective(nn.Module, ABC):
    """Base of pre-training objectives.

    `reads` names the fields of an encoding that the losses use, `parts` names the losses.
    """

    reads: frozenset[str]
    parts: tuple[str, ...]

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        """Corrupt the inputs and set the labels; runs on the device of the batch."""
        return sample

    @abstractmethod
    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted losses by name; 0 with zero gradients if nothing is predicted."""

    def grade(self, model: VisionLanguageModel, encoding: Encoding, sample: Sample) -> dict[str, Grades]:
        """Grade the predictions of each part that has right answers."""
        return {}


def grades(logits: Float[Tensor, "M C"], right: Int[Tensor, " M"], mask: Bool[Tensor, "B L"]) -> Grades:
    """Grade the best class of each True in `mask`: 1 if it is the right one."""
    # The first column of `nonzero` is the row, in the order of the predictions.
    return Grades((logits.argmax(-1) == right).float(), mask.nonzero()[:, 0])


def seeing_rows(inputs: Inputs) -> Bool[Tensor, " B"]:
    """Mask of the rows that have regions; the others are text alone."""
    if inputs.regions is not None:
        # An image that several rows share is there once.
        return inputs.regions.spread(inputs.regions.mask.any(1))
    assert inputs.text is not None, "a row has text or regions"
    return torch.zeros(len(inputs.text.ids), dtype=torch.bool, device=inputs.text.ids.device)


def first_layers(dim: int, *, norm: bool = True, eps: float = 1e-12, std: float = 0.02) -> nn.Sequential:
    """Build Linear, GELU, LayerNorm: the first layers of most pre-training heads."""
    layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
    if norm:
        layers.append(nn.LayerNorm(dim, eps=eps))
    init_bert(layers, std=std)
    return layers


def average(losses: Float[Tensor, " M"], mask: Bool[Tensor, "B L"], *, by: str = "all") -> Float[Tensor, ""]:
    """Average the losses of all predicted positions; 0 if there are none.

    Args:
        losses: one loss per True in `mask`, in the same order.
        mask: predicted positions of each row.
        by: `all` averages over positions. `rows` averages within each row first, then over the rows with
            predictions; it adds 1e-4 to both divisors, as VL-BERT's `*_LOSS_NORM_IN_BATCH_FIRST` does.
    """
    if by not in ("all", "rows"):
        raise ConfigError(f"losses are averaged by {by!r}; expected 'all' or 'rows'.")
    if by == "all":
        # Not `mean`, which is NaN without positions: one batch of short texts would destroy the weights.
        return losses.sum() / mask.sum().clamp(min=1)
    # nonzero() lists positions in the order of the losses; its first column is the row of each.
    sums = losses.new_zeros(len(mask)).index_add(0, mask.nonzero()[:, 0], losses)
    counts = mask.sum(1)
    return (sums / (counts + 1e-4)).sum() / ((counts > 0).sum() + 1e-4)


def zero_loss(states: Tensor) -> Float[Tensor, ""]:
    """Return a loss of 0 with zero gradients."""
    # Not a constant: backward() needs a graph, even if this is the only loss of a batch.
    return states.float().sum() * 0
