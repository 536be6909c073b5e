"""Layers and stacks made of the two sub-layers, attention and feed-forward."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych.nn.attention import ALL, NOTHING, Attention
from diptych.nn.sizes import require_sizes
from diptych.types import Encoding


class FeedForward(nn.Module):
    """`norm(x + dropout(contract(gelu(expand(x)))))` with the exact (erf) GELU."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.1, eps: float = 1e-12) -> None:
        super().__init__()
        require_sizes(dim=dim, hidden=hidden)
        self.expand = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        states: Tensor = self.norm(x + self.dropout(self.contract(self.activation(self.expand(x)))))
        return states


class Layer(nn.Module):
    """Self-attention, then feed-forward: one layer of BERT."""

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
        self.attention = Attention(dim, heads, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
        self.feedforward = FeedForward(dim, hidden, dropout=dropout, eps=eps)

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], keep: slice = ALL
    ) -> Float[Tensor, "B S D"]:
        """Return new states of the positions `keep`."""
        states: Tensor = self.feedforward(self.attention(x, mask, keep=keep))
        return states


def run_layers(
    layers: Iterable[nn.Module], x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B K"], keep: slice = ALL
) -> Float[Tensor, "B S D"]:
    """Return the states of the positions `keep` after all layers; for NOTHING, no layer runs."""
    stack = [] if keep == NOTHING else [*layers]
    if not stack:
        return x[:, keep]
    # Only the last layer may drop positions: every other layer's output is the next one's keys and values.
    for layer in stack[:-1]:
        x = layer(x, mask)
    states: Tensor = stack[-1](x, mask, keep)
    return states


class Encoder(nn.Module):
    """A stack of layers. States of padded positions are computed but mean nothing."""

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        heads: int,
        hidden: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        require_sizes(layers=layers)
        self.layers = nn.ModuleList(
            Layer(dim, heads, hidden=hidden, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
            for _ in range(layers)
        )

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], keep: slice = ALL
    ) -> Float[Tensor, "B S D"]:
        return run_layers(self.layers, x, mask, keep)

    def states(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> list[Float[Tensor, "B T D"]]:
        """Return the input and the output of every layer."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return states


def encode_jointly(
    encoder: Encoder,
    parts: tuple[Float[Tensor, "B T D"], Float[Tensor, "B R D"]],
    *,
    masks: tuple[Bool[Tensor, "B T"], Bool[Tensor, "B R"]],
    pool: Callable[[Float[Tensor, "B S D"]], Float[Tensor, "B D"]],
    reads: frozenset[str],
) -> Encoding:
    """Encode text and regions as one sequence, and compute only the states that `reads` asks for.

    Args:
        parts: embedded text and embedded regions.
        masks: masks of both.
        pool: from the text states to the pooled vector. It gets the first state only, unless `reads` has
            `text`.
    """
    length = parts[0].shape[1]
    # The text comes first. `start` to `stop` is the smallest range of positions that covers what is read;
    # the pooled vector needs the first one only.
    # Example of 20 tokens and 36 regions: `pooled` alone keeps position 0, which spares the last layer 55 of
    # 56 queries; `regions` alone keeps 20 to 55.
    start = 0 if reads & {"pooled", "text"} else length
    stop = None if "regions" in reads else length if "text" in reads else 1
    states = encoder(torch.cat(parts, 1), torch.cat(masks, 1), slice(start, stop))
    text, regions = states[:, : length - start], states[:, length - start :]
    return Encoding(
        pooled=pool(text) if "pooled" in reads else None,
        text=text if "text" in reads else None,
        regions=regions if "regions" in reads else None,
    )


class CrossLayer(nn.Module):
    """Text and regions attend to each other with shared weights, then each passes its own layer (LXMERT).

    Both directions read the incoming states, so their order does not matter for the result.
    """

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
        self.attention = Attention(dim, heads, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
        self.text, self.regions = (
            Layer(dim, heads, hidden=hidden, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
            for _ in range(2)
        )

    def forward(
        self,
        text: Float[Tensor, "B T D"],
        text_mask: Bool[Tensor, "B T"],
        regions: Float[Tensor, "B R D"],
        region_mask: Bool[Tensor, "B R"],
        *,
        keep_text: slice = ALL,
        keep_regions: slice = ALL,
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B Q D"]]:
        """Return new states of both modalities, at the positions to keep."""
        words, areas = text[:, NOTHING], regions[:, NOTHING]
        if keep_regions != NOTHING:
            # All positions pass the shared attention: the layer behind it needs them as keys.
            looked = self.attention(regions, text_mask, text, call="regions")
            areas = self.regions(looked, region_mask, keep_regions)
        if keep_text != NOTHING:
            words = self.text(self.attention(text, region_mask, regions, call="text"), text_mask, keep_text)
        return words, areas


@contextmanager
def checkpointed(module: nn.Module) -> Iterator[None]:
    """Enable activation checkpointing inside the block: layers recompute activations in the backward pass.

    Layers are the members of every `nn.ModuleList`. Loss and gradients stay the same, dropout included.
    """
    stacks = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    layers = {layer for stack in stacks for layer in stack}  # a set: a shared layer must be wrapped once only
    for layer in layers:
        # use_reentrant=False works with keyword arguments and with inputs that need no gradient.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # removes the instance attribute, so that the method of the class is back
