"""From states to vectors: poolers inside models, and readouts of an example's pairs for a task's head."""

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
    """State of the second-to-last real token of each row, or of its only token."""
    # From the mask and not from the length: rows are padded on the right.
    # Of five real tokens, numbered 0 to 4, the state of number 3.
    index = (mask.sum(1) - 2).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), index]


class LayerAverage(nn.Module):
    """Learned weighted average of the first token's states before and after every layer.

    Args:
        layers: number of layers of the encoder. Initially, the last one has the weight
            `1 / (1 + layers * exp(-3))`.
        dropout: rate on the states before they are averaged, drawn for each state by itself.
    """

    def __init__(self, layers: int, *, dropout: int | float = 0.2) -> None:
        super().__init__()
        # Logits of a softmax, as in Vilio: training starts close to the last layer alone.
        weights = torch.full((layers + 1,), -3.0)
        weights[-1] = 0
        self.weights = nn.Parameter(weights)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Sequence[Float[Tensor, "B T D"]]) -> Float[Tensor, "B D"]:
        # [B, D, layers + 1] times weights that sum to 1.
        first = self.dropout(torch.stack([state[:, 0] for state in states], -1))
        vector: Tensor = first @ self.weights.softmax(0)
        return vector


class Readout(nn.Module, ABC):
    """Base of readouts, which turn the encodings of an example's pairs into one vector for the head.

    A readout is built from a model and the number of pairs. `dim` is the width of its vector; `reads` names
    the fields of the encoding that it uses.
    """

    dim: int
    reads: frozenset[str]

    @abstractmethod
    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        """Return one vector per example."""


class Pooled(Readout):
    """Concatenate the pooled vectors of an example's pairs."""

    reads = frozenset({"pooled"})

    def __init__(self, model: VisionLanguageModel, pairs: int = 1) -> None:
        super().__init__()
        self.dim = pairs * model.dim

    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        assert encoding.pooled is not None
        # Pairs of an example lie one behind the other in the batch, so this is [left ; right].
        vectors: Tensor = batch.group(encoding.pooled).flatten(1)
        return vectors


class PairAttention(Readout):
    """Let each of two pairs attend to the other, then pool both by attention (UNITER's NLVR2).

    Args:
        heads: number of heads of the attention between pairs.
        dropout: rate on the attention's weights and on its output.
    """

    reads = frozenset({"text", "regions"})

    def __init__(
        self, model: VisionLanguageModel, pairs: int = 2, *, heads: int = 12, dropout: int | float = 0.1
    ) -> None:
        super().__init__()
        dim = model.text_dim
        if pairs != 2 or not dim or model.region_dim != dim:
            raise ConfigError(
                f"PairAttention takes 2 pairs, and token and region states of one width; got {pairs} pairs "
                f"and the widths {dim} and {model.region_dim} of {type(model).__name__}."
            )
        require_sizes(heads=heads)
        if dim % heads:
            raise ConfigError(f"the width of the states (={dim}) must be divisible by heads (={heads}).")
        self.dim = 2 * dim
        self.attention = nn.ModuleList(
            # Not `Attention`, because UNITER has neither a residual nor a LayerNorm here.
            nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
            for _ in range(2)
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
        # Each side has an attention of its own, but both share `merge` and `weigh`, as in UNITER.
        seen, _ = self.attention[side](
            own, other, other, key_padding_mask=~masks[1 - side], need_weights=False
        )
        x = self.dropout(self.merge(torch.cat([seen, own], -1)).relu())
        # ReLU on the scores and -1e4 for padding are UNITER's.
        scores = self.weigh(x).relu().squeeze(-1).masked_fill(~masks[side], -1e4)
        pooled: Tensor = (scores.softmax(-1)[:, None] @ x).squeeze(1)
        return pooled
