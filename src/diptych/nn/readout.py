"""From states to vectors: of one sequence inside a model, of an example's pairs in front of a head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.init import init_bert, initial_std
from diptych.nn.sizes import require_sizes
from diptych.types import Batch, Encoding, VisionLanguageModel


class FirstToken(nn.Module):
    """`tanh(dense(state of the first token))`, the pooler of BERT."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        dense: Tensor = self.dense(states[:, 0])
        return dense.tanh()


def before_end(states: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """State of the token before the last real one; of a row with a single token, that token's."""
    index = (mask.sum(1) - 2).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), index]


class LayerAverage(nn.Module):
    """Weighted mean of the first token's states before and after every layer; the weights are learned.

    Args:
        layers: of the encoder. At first the last one has the weight `1 / (1 + layers * exp(-3))`.
        dropout: of every state by itself.
    """

    def __init__(self, layers: int, *, dropout: int | float = 0.2) -> None:
        super().__init__()
        weights = torch.full((layers + 1,), -3.0)
        weights[-1] = 0
        self.weights = nn.Parameter(weights)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Sequence[Float[Tensor, "B T D"]]) -> Float[Tensor, "B D"]:
        first = self.dropout(torch.stack([one[:, 0] for one in states], -1))
        vector: Tensor = first @ self.weights.softmax(0)
        return vector


class Readout(nn.Module, ABC):
    """What a head reads of the pairs of an example; built with a model and the number of pairs.

    `dim` is the width of the vector, `reads` are the fields of an encoding that it comes from.
    """

    dim: int
    reads: frozenset[str]

    @abstractmethod
    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        """One vector per example."""


class Pooled(Readout):
    """The pooled vectors of an example's pairs, side by side."""

    reads = frozenset({"pooled"})

    def __init__(self, model: VisionLanguageModel, pairs: int = 1) -> None:
        super().__init__()
        self.dim = pairs * model.dim

    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        assert encoding.pooled is not None
        vectors: Tensor = batch.group(encoding.pooled).flatten(1)
        return vectors


class PairAttention(Readout):
    """Each of two pairs attends to the other, then both are pooled by attention (UNITER's NLVR2).

    Args:
        heads: of the attention from pair to pair.
        dropout: of its weights, and of what comes out.
    """

    reads = frozenset({"text", "regions"})

    def __init__(
        self, model: VisionLanguageModel, pairs: int = 2, *, heads: int = 12, dropout: int | float = 0.1
    ) -> None:
        super().__init__()
        dim = model.text_dim
        if pairs != 2 or not dim or model.region_dim != dim:
            raise ConfigError(
                f"PairAttention takes 2 pairs and states of tokens and regions of one width; got {pairs} and "
                f"the widths {dim} and {model.region_dim} of {type(model).__name__}."
            )
        require_sizes(heads=heads)
        if dim % heads:
            raise ConfigError(f"the width of the states (={dim}) must be divisible by heads (={heads}).")
        self.dim = 2 * dim
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True) for _ in range(2)
        )
        self.merge, self.weigh = nn.Linear(2 * dim, dim), nn.Linear(dim, 1)
        self.dropout = nn.Dropout(dropout)
        init_bert(self, std=initial_std(model))

    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        text, regions = batch.inputs.text, batch.inputs.regions
        assert text is not None and regions is not None
        assert encoding.text is not None and encoding.regions is not None
        states = batch.group(torch.cat([encoding.text, encoding.regions], 1)).unbind(1)
        masks = batch.group(torch.cat([text.mask, regions.mask], 1)).unbind(1)
        return torch.cat([self._read(side, states, masks) for side in range(2)], -1)

    def _read(
        self, side: int, states: Sequence[Float[Tensor, "N S D"]], masks: Sequence[Bool[Tensor, "N S"]]
    ) -> Float[Tensor, "N D"]:
        own, other = states[side], states[1 - side]
        seen, _ = self.attention[side](
            own, other, other, key_padding_mask=~masks[1 - side], need_weights=False
        )
        x = self.dropout(self.merge(torch.cat([seen, own], -1)).relu())
        scores = self.weigh(x).relu().squeeze(-1).masked_fill(~masks[side], -1e4)
        pooled: Tensor = (scores.softmax(-1)[:, None] @ x).squeeze(1)
        return pooled
