"""The attention sub-layer of every family, and a context manager that captures its attention maps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.sizes import require_sizes
from diptych.tree import Tree, register_tree

# Positions whose states are needed after a layer. The others only serve as keys and values.
ALL, FIRST, NOTHING = slice(None), slice(1), slice(0)
Side = Literal["text", "regions", "both"]


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValues(Tree):
    """Keys and values of the positions that are attended to; a decoder keeps them from step to step."""

    keys: Float[Tensor, "B H K d"]
    values: Float[Tensor, "B H K d"]

    def append(self, later: "KeyValues") -> "KeyValues":
        """Add later positions."""
        return KeyValues(
            keys=torch.cat([self.keys, later.keys], 2), values=torch.cat([self.values, later.values], 2)
        )


class Recorded(nn.Module):
    """Base of layers whose maps `capture_attention` records; `record` gets the name of a call and its map."""

    record: Callable[[str | None, Tensor], None] | None = None


class Attention(Recorded):
    """`norm(x + dropout(out(attend(query(x), key(context), value(context)))))`, the post-norm of BERT.

    If every key of a row is masked, the attended value is zero, not NaN.

    Args:
        context_dim: width of the states that are attended to; None means `dim`.
        inner_dim: width of all heads together; None means `dim`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        context_dim: int | None = None,
        inner_dim: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        context_dim, inner_dim = context_dim or dim, inner_dim or dim
        require_sizes(dim=dim, heads=heads, context_dim=context_dim, inner_dim=inner_dim)
        if inner_dim % heads:
            raise ConfigError(f"the attention width (={inner_dim}) must be divisible by heads (={heads}).")
        # A rate and no module: the fused kernel drops inside.
        self.heads, self.attention_dropout = heads, attention_dropout
        # Three Linears instead of a fused one, so that the originals' weights only have to be renamed.
        self.query = nn.Linear(dim, inner_dim)
        self.key = nn.Linear(context_dim, inner_dim)
        self.value = nn.Linear(context_dim, inner_dim)
        self.out = nn.Linear(inner_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        mask: Bool[Tensor, "B K"],
        context: Float[Tensor, "B K Dc"] | None = None,
        *,
        keep: slice = ALL,
        call: str | None = None,
    ) -> Float[Tensor, "B S D"]:
        """Attend from `x` to the real positions of `context`; None means to `x` itself.

        Args:
            keep: positions of `x` whose states are returned; the others cost nothing.
            call: name of this call among several of one layer, for `capture_attention`.
        """
        seen = self.keys_values(x if context is None else context)
        if self.record is None:
            x, keep = x[:, keep], ALL
        # Expanded without a copy; one mask serves all queries.
        return self.attend(x, seen, mask[:, None, :].expand(-1, x.shape[1], -1), call=call)[:, keep]

    def keys_values(self, context: Float[Tensor, "B K Dc"]) -> KeyValues:
        """Project what is attended to."""
        return KeyValues(keys=self._by_head(self.key(context)), values=self._by_head(self.value(context)))

    def attend(
        self,
        x: Float[Tensor, "B Q D"],
        seen: KeyValues,
        mask: Bool[Tensor, "B Q K"],
        *,
        call: str | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Attend from `x` to projected positions; `mask` says which of them each query sees."""
        q, k, v = self._by_head(self.query(x)), seen.keys, seen.values
        keys = mask[:, None]  # one mask serves all heads
        dropout = self.attention_dropout if self.training else 0.0
        # Measured on a CPU in bfloat16: the fused kernel is four times as slow, mostly in the backward pass.
        plain = q.dtype == torch.bfloat16 and q.device.type == "cpu"
        # The fused kernel never forms the matrix of weights, so maps can be captured on the other path only.
        if self.record is None and not plain:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=keys, dropout_p=dropout)
        else:
            weights = attention_weights(q, k, keys)
            if self.record is not None:
                self.record(call, weights)
            # The default training=True is right: outside of training the rate is 0.
            attended = F.dropout(weights, dropout) @ v
        states: Tensor = self.norm(x + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        return states

    def _by_head(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T d"]:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)


def attention_weights(
    q: Float[Tensor, "B H Q d"], k: Float[Tensor, "B H K d"], keys: Bool[Tensor, "B 1 Q K"]
) -> Float[Tensor, "B H Q K"]:
    # Scaling the query is cheaper than scaling the larger scores, and keeps them in the range of half
    # precision.
    scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    # The softmax of a row of minus infinities is NaN; a finite minimum gives finite weights, zeroed below.
    scores = scores.masked_fill(~keys, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~keys, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPlaces:
    """What the positions of a model's attention maps are.

    A model returns it from its method `attention_places()`. Without that method, all its maps are over the
    text followed by the regions.

    Args:
        sides: queries and keys of a map, by pattern of its name in `capture_attention` (`fnmatch`); the first
            pattern that matches counts. `both` is the text followed by the regions.
        after_first: what the model inserts after the first token.
        before_regions: what the model puts before the regions; `after_regions`, after them.
        pooled: whose states the pooled vector is made of: the first token's, those of the token before the
            last one, or those of the first token and the first region.
    """

    sides: Mapping[str, tuple[Side, Side]] = field(default_factory=lambda: {"*": ("both", "both")})
    after_first: tuple[str, ...] = ()
    before_regions: tuple[str, ...] = ()
    after_regions: tuple[str, ...] = ()
    pooled: Literal["first", "before_end", "first_of_both"] = "first"

    def describes(self, name: str) -> bool:
        """Whether the map with this name is over places; those of patches are not."""
        return any(fnmatchcase(name, pattern) for pattern in self.sides)

    def sides_of(self, name: str) -> tuple[Side, Side]:
        """Return the queries and the keys of the map with this name."""
        return next(sides for pattern, sides in self.sides.items() if fnmatchcase(name, pattern))


def attention_places(model: nn.Module) -> AttentionPlaces:
    """Return the places that a model states, or those of one stream over text and regions."""
    own: Callable[[], AttentionPlaces] | None = getattr(model, "attention_places", None)
    return AttentionPlaces() if own is None else own()


@contextmanager
def capture_attention(model: nn.Module) -> Iterator[dict[str, Float[Tensor, "B H Q K"]]]:
    """Collect the attention maps of every forward pass inside the block, in order of computation.

    A map is named like its module. If a layer is called several times in one pass, as LXMERT's shared cross
    attention is, the name of the call follows: `cross_layers.0.attention.text` is the map in which the text
    looks at the regions. Later passes overwrite the maps of earlier ones. Maps have all queries, also where
    the model keeps the states of a few; attention that the model skips has no map. Maps are recorded before
    attention dropout and stay in the autograd graph, so gradients with respect to them can be computed.
    """
    maps: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Recorded)}
    for name, layer in layers.items():
        layer.record = _recorder(maps, name)
    try:
        yield maps
    finally:
        for layer in layers.values():
            layer.record = None


def _recorder(maps: dict[str, Tensor], name: str) -> Callable[[str | None, Tensor], None]:
    def record(call: str | None, weights: Tensor) -> None:
        maps[name if call is None else f"{name}.{call}"] = weights

    return record
