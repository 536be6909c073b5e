"""Layers and stacks made of the two sub-layers, attention and feed-forward."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.nn.attention import Attention


class FeedForward(nn.Module):
    """`norm(x + dropout(contract(gelu(expand(x)))))` with the exact (erf) GELU."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.1, eps: float = 1e-12) -> None:
        super().__init__()
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

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        states: Tensor = self.feedforward(self.attention(x, mask))
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
        self.layers = nn.ModuleList(
            Layer(dim, heads, hidden=hidden, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
            for _ in range(layers)
        )

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def states(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> list[Float[Tensor, "B T D"]]:
        """What comes in, and what every layer makes of it."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return states


class CrossLayer(nn.Module):
    """Text and regions look at each other through one shared attention, then each has a layer of its own.

    Both look at what came in, so that their order means nothing (LXMERT).
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
        update_regions: bool = True,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B R D"]]:
        """New states of text and regions; without `update_regions` the regions come back as they were."""
        updated = regions
        if update_regions:
            updated = self.regions(self.attention(regions, text_mask, text), region_mask)
        # The text looks last: of the two maps of the shared attention, a capture keeps the text's.
        return self.text(self.attention(text, region_mask, regions), text_mask), updated
