"""Layers that normalize before attention and feed-forward, as in GPT, ViT and the towers of CLIP."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, nearest
from diptych.nn.attention import Recorded, attention_weights
from diptych.nn.coattention import Sizes
from diptych.nn.sizes import require_sizes


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 x)`, the approximation of GELU in OpenAI's CLIP; it differs by up to 0.02."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return x * torch.sigmoid(1.702 * x)


# By the names in settings. No weight file shows which one it was trained with.
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
}


class PlainAttention(Recorded):
    """`out(attend(query(x), key(context), value(context)))`, without residual, norm and dropout."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        require_sizes(dim=dim, heads=heads)
        if dim % heads:
            raise ConfigError(f"the attention width (={dim}) must be divisible by heads (={heads}).")
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        context: Float[Tensor, "B K D"],
        *,
        mask: Bool[Tensor, "B Q K"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B Q D"]:
        """Attend from `x` to `context`.

        Args:
            mask: keys that each query sees; None means all.
            causal: query number n sees the keys 0 to n; excludes a mask.
        """
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(context), self.value(context))
        )
        # The head dimension of the mask is 1: all heads see the same keys.
        seen = None if mask is None else mask[:, None]
        if self.record is not None:  # the fused kernel never forms the matrix of weights
            every = torch.ones(x.shape[1], context.shape[1], dtype=torch.bool, device=x.device)
            plain = (every.tril() if causal else every).expand(len(x), 1, -1, -1)
            weights = attention_weights(q, k, plain if seen is None else seen)
            self.record(None, weights)
            recorded: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
            return recorded
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal)
        states: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return states


class Perceptron(nn.Module):
    """`contract(activation(expand(x)))`."""

    def __init__(self, dim: int, hidden: int, *, activation: str) -> None:
        super().__init__()
        require_sizes(dim=dim, hidden=hidden)
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"the activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}."
                f"{nearest(activation, ACTIVATIONS)}"
            )
        self.expand, self.contract = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        states: Tensor = self.contract(self.activation(self.expand(x)))
        return states


class PreNormLayer(nn.Module):
    """`x + attention(norm(x))`, then `x + feedforward(norm(x))`."""

    def __init__(self, sizes: Sizes, *, activation: str, eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(sizes.dim, eps=eps)
        self.attention = PlainAttention(sizes.dim, sizes.heads)
        self.feedforward_norm = nn.LayerNorm(sizes.dim, eps=eps)
        self.feedforward = Perceptron(sizes.dim, sizes.hidden, activation=activation)

    def forward(
        self, x: Float[Tensor, "B T D"], at: Int[Tensor, "B S"] | None = None, *, causal: bool = False
    ) -> Float[Tensor, "B S D"]:
        """Return new states of the positions `at`; None means of all."""
        context = self.attention_norm(x)
        if at is not None and self.attention.record is not None:  # maps have all queries
            return pick(self(x, causal=causal), at)
        if at is None:
            x = x + self.attention(context, context, causal=causal)
        else:
            mask = None
            if causal:
                # `is_causal` would count queries from 0; picked ones see the keys up to their own position.
                mask = torch.arange(x.shape[1], device=x.device) <= at[..., None]
            x = pick(x, at) + self.attention(pick(context, at), context, mask=mask)
        # Sums stay unnormalized; whoever stacks the layers normalizes the last one.
        states: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return states


class PreNormEncoder(nn.Module):
    """A stack of layers without the norm that follows the last one.

    Args:
        causal: every position sees itself and earlier ones only, so padding on the right changes no state of
            a real position.
    """

    def __init__(
        self, sizes: Sizes, *, activation: str = "gelu", eps: float = 1e-5, causal: bool = False
    ) -> None:
        super().__init__()
        require_sizes(layers=sizes.layers)
        self.causal = causal
        self.layers = nn.ModuleList(
            PreNormLayer(sizes, activation=activation, eps=eps) for _ in range(sizes.layers)
        )

    def forward(
        self, x: Float[Tensor, "B T D"], at: Int[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B S D"]:
        """Return the states of the positions `at` after all layers; None means of all."""
        *lower, last = self.layers
        # Only the last layer may leave out positions: the others are the keys and values of the next one.
        for layer in lower:
            x = layer(x, causal=self.causal)
        states: Tensor = last(x, at, causal=self.causal)
        return states


class AttentionPool(nn.Module):
    """One vector that attends to all states: `y = attention(probe, x)`, then `y + feedforward(norm(y))`."""

    def __init__(self, sizes: Sizes, *, activation: str, eps: float) -> None:
        super().__init__()
        # Of length about 1, as the class vector of CLIP.
        self.probe = nn.Parameter(torch.randn(1, 1, sizes.dim) * sizes.dim**-0.5)
        self.attention = PlainAttention(sizes.dim, sizes.heads)
        self.norm = nn.LayerNorm(sizes.dim, eps=eps)
        self.feedforward = Perceptron(sizes.dim, sizes.hidden, activation=activation)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        seen = self.attention(self.probe.expand(len(states), -1, -1), states)[:, 0]
        pooled: Tensor = seen + self.feedforward(self.norm(seen))
        return pooled


def pick(states: Float[Tensor, "B T D"], at: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    """Return the states of some positions of each row."""
    return states[torch.arange(len(states), device=states.device)[:, None], at]
