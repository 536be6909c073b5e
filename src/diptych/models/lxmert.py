"""LXMERT: a text encoder and a region encoder, followed by cross-attention layers between them.

Tan and Bansal, 2019, https://arxiv.org/abs/1908.07490. Original: airsplay/lxmert.
One difference: the text of a row without regions attends to no region, where the original attends to padding.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.nn.attention import ALL, FIRST, NOTHING, AttentionPlaces
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require_both
from diptych.nn.readout import FirstToken
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import CrossLayer, Encoder
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions


class RegionEmbedding(nn.Module):
    """`dropout((norm(feature) + norm(box)) / 2)`; the features of hidden regions are zeros."""

    def __init__(self, feature_dim: int, dim: int, *, dropout: float = 0.1, eps: float = 1e-12) -> None:
        super().__init__()
        require_sizes(feature_dim=feature_dim, dim=dim)
        self.feature, self.feature_norm = nn.Linear(feature_dim, dim), nn.LayerNorm(dim, eps=eps)
        self.box, self.box_norm = nn.Linear(4, dim), nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: PaddedRegions) -> Float[Tensor, "B R D"]:
        feature = regions.features
        if regions.hidden is not None:
            # Only the feature: the box says which region is to be predicted.
            feature = feature.masked_fill(regions.hidden[..., None], 0)
        feature = self.feature_norm(self.feature(feature))
        # The mean of two normalized vectors, unlike UNITER's sum with a LayerNorm on top.
        x: Tensor = self.dropout((feature + self.box_norm(self.box(regions.boxes))) / 2)
        return x


class Lxmert(nn.Module):
    """Two encoders joined by cross-attention layers; pools the first token of the text.

    The first row of each text table (words, positions, segments) is never trained, as in the original. That
    is the padding word, but also the first position and the only segment that the original uses.

    Args:
        layers: number of layers of the text encoder.
        region_layers: number of layers of the region encoder.
        cross_layers: number of cross-attention layers.
        attend_padding: attend to padded regions as if they were real, as Vilio does. A score then depends on
            the other rows of the batch.
        std: standard deviation of the initial weights.
    """

    needs = frozenset({"text", "regions"})
    shares_regions = shares_text = True

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        feature_dim: int = 2048,
        dim: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 9,
        region_layers: int = 5,
        cross_layers: int = 5,
        max_positions: int = 512,
        segments: int = 2,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        attend_padding: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.dim = self.text_dim = self.region_dim = dim
        self.std = std
        self.feature_dim, self.attend_padding = feature_dim, attend_padding
        self.text = TextEmbedding(
            vocab_size,
            dim,
            max_positions=max_positions,
            segments=segments,
            # The original sets padding_idx=0 in all three tables, see the docstring.
            position_padding=0,
            segment_padding=0,
            dropout=dropout,
            eps=eps,
        )
        self.regions = RegionEmbedding(feature_dim, dim, dropout=dropout, eps=eps)
        shape: dict[str, Any] = {"heads": heads, "hidden": hidden, "eps": eps}
        shape |= {"dropout": dropout, "attention_dropout": attention_dropout}
        self.text_encoder = Encoder(layers, dim, **shape)
        self.region_encoder = Encoder(region_layers, dim, **shape)
        require_sizes(cross_layers=cross_layers)
        # At least one: without it, the text would never see the regions.
        self.cross_layers = nn.ModuleList(CrossLayer(dim, **shape) for _ in range(cross_layers))
        self.pool = FirstToken(dim)
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        text, regions = require_both(self, inputs, feature_dim=self.feature_dim)
        region_mask = torch.ones_like(regions.mask) if self.attend_padding else regions.mask
        # Neither encoder reads the other's input, so questions about one image share its regions, and all
        # images that are compared with one text share its states.
        states = text.spread(self.text_encoder(self.text(text), text.mask))
        seen = regions.spread(self.region_encoder(self.regions(regions), region_mask))
        # After both encoders, which ran once per item; from here on, there is a row per question.
        text_mask, region_mask = text.spread(text.mask), regions.spread(region_mask)
        # Only the last layer may skip positions: every layer below feeds the attention of the next one.
        last = {
            "keep_text": ALL if "text" in reads else FIRST if "pooled" in reads else NOTHING,
            "keep_regions": ALL if "regions" in reads else NOTHING,
        }
        for number, layer in enumerate(self.cross_layers, 1):
            keeps = last if number == len(self.cross_layers) else {}
            states, seen = layer(states, text_mask, seen, region_mask, **keeps)
        return Encoding(
            pooled=self.pool(states) if "pooled" in reads else None,
            text=states if "text" in reads else None,
            regions=seen if "regions" in reads else None,
        )

    def attention_places(self) -> AttentionPlaces:
        return AttentionPlaces(
            sides={
                "*.attention.text": ("text", "regions"),
                "*.attention.regions": ("regions", "text"),
                "*text_encoder.*": ("text", "text"),
                "*.text.attention": ("text", "text"),
                "*": ("regions", "regions"),
            }
        )

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def lxmert_base(**overrides: Any) -> Lxmert:
    """9 text layers, 5 region layers, 5 cross layers, width 768: 208 M parameters."""
    return Lxmert(**overrides)


def lxmert_tiny(**overrides: Any) -> Lxmert:
    """1 text layer, 1 region layer, 2 cross layers, width 48, no dropout: learns on a CPU.

    With BERT's small initial weights, a task that needs text and image together starts at a saddle point.
    Measured on 2,000 miniature memes at a learning rate of 1e-3: a standard deviation of 0.15 escapes within
    3 epochs; with 0.1 and 0.3 some seeds never did.
    """
    sizes = {"vocab_size": 1000, "feature_dim": 64, "dim": 48, "heads": 4, "hidden": 192, "layers": 1}
    depth = {"region_layers": 1, "cross_layers": 2}
    learning = {"dropout": 0.0, "attention_dropout": 0.0, "std": 0.15}
    return Lxmert(**{**sizes, **depth, **learning, **overrides})
