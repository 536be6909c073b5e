"""A causal decoder that attends to the states of an encoder, and its memory from step to step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.attention import Attention, KeyValues
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder, FeedForward
from diptych.tree import Tree, register_tree


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Tree):
    """What a decoder attends to. Rows are hypotheses: `map` with an index selects or repeats them.

    Args:
        past: keys and values of the positions so far, per layer; empty before the first.
        context: those of the encoder's states, per layer.
        mask: real positions of the encoder's states.
    """

    past: tuple[KeyValues, ...] = ()
    context: tuple[KeyValues, ...]
    mask: Bool[Tensor, "B S"]

    @property
    def length(self) -> int:
        """Number of positions so far."""
        return self.past[0].keys.shape[2] if self.past else 0


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward; each with BERT's post-norm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        hidden: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.attention, self.cross = (
            Attention(dim, heads, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
            for _ in range(2)
        )
        self.feedforward = FeedForward(dim, hidden, dropout=dropout, eps=eps)

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        past: KeyValues | None,
        context: KeyValues,
        masks: tuple[Bool[Tensor, "B Q K"], Bool[Tensor, "B Q S"]],
    ) -> tuple[Float[Tensor, "B Q D"], KeyValues]:
        """Return new states, and the keys and values of all positions so far."""
        own = self.attention.keys_values(x)
        # Earlier positions never see later ones, so their keys and values stay as they are.
        seen = own if past is None else past.append(own)
        x = self.cross.attend(self.attention.attend(x, seen, masks[0]), context, masks[1])
        return self.feedforward(x), seen


class Decoder(nn.Module):
    """`layers` over `dropout(norm(word + position))`. The words are embedded by the caller.

    The layers are named as in `Encoder`, so those of a BERT can be copied; see `start_from`.
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        heads: int,
        hidden: int,
        max_positions: int = 512,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        require_sizes(layers=layers, dim=dim, max_positions=max_positions)
        self.positions = nn.Embedding(max_positions, dim)
        self.norm, self.dropout = nn.LayerNorm(dim, eps=eps), nn.Dropout(dropout)
        rates = {"dropout": dropout, "attention_dropout": attention_dropout, "eps": eps}
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden=hidden, **rates) for _ in range(layers))

    def look(self, context: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"]) -> Seen:
        """Project the encoder's states, once for all steps."""
        projected = (cast(DecoderLayer, layer).cross.keys_values(context) for layer in self.layers)
        return Seen(context=tuple(projected), mask=mask)

    def forward(self, words: Float[Tensor, "B Q D"], seen: Seen) -> tuple[Float[Tensor, "B Q D"], Seen]:
        """Return the states of the next positions, each of which sees itself and what is before it.

        Raises:
            ConfigError: there are more positions than the decoder has embeddings.
        """
        (rows, count, _), start = words.shape, seen.length
        total = start + count
        if total > self.positions.num_embeddings:
            raise ConfigError(
                f"a sentence of {total} tokens exceeds the {self.positions.num_embeddings} positions of the "
                "decoder; lower task.max_length."
            )
        x = self.dropout(self.norm(words + self.positions.weight[start:total]))
        # Query i is position start + i. Padding is on the right, where no real position looks.
        # Example of one query after two positions: total is 3, tril(2) keeps all three keys.
        causal = torch.ones(count, total, dtype=torch.bool, device=words.device).tril(start)
        # Every query sees all real states of the encoder.
        masks = causal.expand(rows, -1, -1), seen.mask[:, None].expand(-1, count, -1)
        past: list[KeyValues] = []
        for number, layer in enumerate(self.layers):
            before = seen.past[number] if seen.past else None
            x, kept = layer(x, before, seen.context[number], masks)
            # Of each layer, also with the positions of this call: the next one begins behind them.
            past.append(kept)
        return x, Seen(past=tuple(past), context=seen.context, mask=seen.mask)

    @torch.no_grad()
    def start_from(self, model: nn.Module) -> None:
        """Copy position embeddings, self-attention and feed-forward layers of a BERT-like model.

        Attention to the encoder has no counterpart there and keeps its weights (Rothe et al., 2020,
        https://arxiv.org/abs/1907.12461).

        Raises:
            ConfigError: the model has no such layers, fewer layers, or layers of other sizes.
        """
        encoder = next((part for part in model.modules() if isinstance(part, Encoder)), None)
        # `TextEmbedding` or VL-BERT's own, which `nn` does not know
        embedding: Any = next((part for part in model.modules() if _embeds(part)), None)
        if encoder is None or embedding is None:
            raise ConfigError(
                f"{type(model).__name__} has no layers of BERT to start a decoder from; set "
                "task.warm_start=false."
            )
        if len(self.layers) > len(encoder.layers):
            raise ConfigError(
                f"task.layers is {len(self.layers)}, but the model has {len(encoder.layers)} to start from."
            )
        pairs: list[Any] = [(self.norm, embedding.norm)]
        # A decoder with fewer layers takes the lower ones.
        for mine, theirs in zip(self.layers, encoder.layers, strict=False):
            pairs += [(mine.attention, theirs.attention), (mine.feedforward, theirs.feedforward)]
        for mine, theirs in pairs:
            # Before torch does, whose message would not name the setting.
            _require_shapes(mine, theirs.state_dict())
            mine.load_state_dict(theirs.state_dict())
        # Further positions keep their random weights; the decoder may be longer or shorter than the encoder.
        count = min(len(self.positions.weight), len(embedding.positions.weight))
        self.positions.weight[:count] = embedding.positions.weight[:count]


def _embeds(part: nn.Module) -> bool:
    return isinstance(getattr(part, "positions", None), nn.Embedding) and hasattr(part, "norm")


def _require_shapes(part: nn.Module, weights: Mapping[str, Tensor]) -> None:
    shapes = {key: one.shape for key, one in part.state_dict().items()}
    if other := [(key, shape) for key, shape in shapes.items() if weights[key].shape != shape]:
        key, shape = other[0]
        raise ConfigError(
            f"a decoder cannot start from the model: its {key} has shape {list(shape)}, the model's "
            f"{list(weights[key].shape)}. Use the model's heads and hidden, or set task.warm_start=false."
        )
