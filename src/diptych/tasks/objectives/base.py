"""What every pre-training objective answers for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn import init_bert
from diptych.types import Encoding, Inputs, PaddedRegions, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A batch on its way through corruption: what the model sees, and what it is asked.

    None means that nobody has asked yet. Data that bring their own questions fill the fields themselves.

    Args:
        inputs: what the model sees.
        regions: the regions before any was hidden.
        words: id to be predicted of each token, -1 where none is.
        wanted: regions to be predicted, seen or not.
        broken: how a pair was torn apart: 0 it was not, 1 another text, image or second text, 2 another first
            text.
        answers: index of the answer to be given, -1 where none is.
        targets: of the batch.
    """

    inputs: Inputs
    regions: PaddedRegions | None = None
    words: Int[Tensor, "B T"] | None = None
    wanted: Bool[Tensor, "B R"] | None = None
    broken: Int[Tensor, " B"] | None = None
    answers: Int[Tensor, " B"] | None = None
    targets: Shaped[Tensor, "N ..."] | None = None

    def ask(self, inputs: Inputs | None = None, **asked: Any) -> "Sample":
        """The same with other inputs and further questions, each of which nobody has asked before."""
        if double := [name for name in asked if getattr(self, name) is not None]:
            raise ConfigError(
                f"two objectives of one batch ask for {double[0]}; draw them in turn with task.draw, or "
                "join what they predict in one objective."
            )
        return replace(self, inputs=self.inputs if inputs is None else inputs, **asked)

    def intact(self) -> Bool[Tensor, " B"] | None:
        """Rows whose text and image belong together; None where none was torn apart."""
        return None if self.broken is None else self.broken == 0


class Objective(nn.Module, ABC):
    """One thing that pre-training asks.

    `reads` names the fields of an encoding that its losses look at, `parts` names its losses.
    """

    reads: frozenset[str]
    parts: tuple[str, ...]

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        """Change what the model sees and note what it is asked; runs on the device of the batch."""
        return sample

    @abstractmethod
    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses by name, unweighted; 0 with zero gradients where nothing is asked."""


def transform(dim: int, *, norm: bool = True, eps: float = 1e-12, std: float = 0.02) -> nn.Sequential:
    """Linear, GELU, LayerNorm: what most heads of pre-training begin with."""
    layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
    if norm:
        layers.append(nn.LayerNorm(dim, eps=eps))
    init_bert(layers, std=std)
    return layers


def average(losses: Float[Tensor, " M"], asked: Bool[Tensor, "B L"], *, by: str = "all") -> Float[Tensor, ""]:
    """Mean of the losses of all asked places, in their order; 0 where none is.

    Args:
        by: `rows` takes the mean of each row first, then over rows that ask anything. It adds 1e-4 to both
            divisors, as VL-BERT's `*_LOSS_NORM_IN_BATCH_FIRST` does.
    """
    if by not in ("all", "rows"):
        raise ConfigError(f"losses are averaged by {by!r}; expected 'all' or 'rows'.")
    if by == "all":
        return losses.sum() / asked.sum().clamp(min=1)
    sums = losses.new_zeros(len(asked)).index_add(0, asked.nonzero()[:, 0], losses)
    counts = asked.sum(1)
    return (sums / (counts + 1e-4)).sum() / ((counts > 0).sum() + 1e-4)


def nothing(states: Tensor) -> Float[Tensor, ""]:
    """A loss of 0 with zero gradients."""
    return states.float().sum() * 0
