"""UNITER: one transformer over text tokens followed by image regions.

Chen et al., 2020, https://arxiv.org/abs/1909.11740. Original: ChenRocks/UNITER.
Difference: rows stay padded where the original compacts them; the states of real positions are the same.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.nn.boxes import corners_size_area
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require_both
from diptych.nn.readout import FirstToken
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder, encode_jointly
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions


class RegionEmbedding(nn.Module):
    """`norm(norm(feature) + norm(box) + segment)`; the segment vector comes from the text table."""

    def __init__(self, feature_dim: int, dim: int, *, dropout: float = 0.1, eps: float = 1e-12) -> None:
        super().__init__()
        require_sizes(feature_dim=feature_dim, dim=dim)
        self.feature, self.feature_norm = nn.Linear(feature_dim, dim), nn.LayerNorm(dim, eps=eps)
        # Both are normalized before they are added, so that neither outweighs the other.
        self.box, self.box_norm = nn.Linear(7, dim), nn.LayerNorm(dim, eps=eps)
        self.norm, self.dropout = nn.LayerNorm(dim, eps=eps), nn.Dropout(dropout)
        self.hidden = nn.Parameter(torch.zeros(feature_dim))  # stands in for regions that pre-training hides

    def forward(self, regions: PaddedRegions, segment: Float[Tensor, "B R D"]) -> Float[Tensor, "B R D"]:
        feature = regions.features
        if regions.hidden is not None:
            feature = torch.where(regions.hidden[..., None], self.hidden, feature)
        feature = self.feature_norm(self.feature(feature))
        # The box stays visible where the feature is hidden: it says which region is to be predicted.
        box = self.box_norm(self.box(corners_size_area(regions.boxes)))
        x: Tensor = self.dropout(self.norm(feature + box + segment))
        return x


class Uniter(nn.Module):
    """Single-stream encoder over text and regions; pools the first token.

    Args:
        segments: rows of the segment table. Row 0 is for text, row 1 + n for the regions of image n. NLVR2
            with both images in one row needs 3.
        attend_padding: attend to padded regions as if they were real, as nav13n/multimodal-learning does.
            A score then depends on the other rows of the batch.
        std: standard deviation of the initial weights.
    """

    needs = frozenset({"text", "regions"})

    def __init__(
        self,
        *,
        vocab_size: int = 28996,
        feature_dim: int = 2048,
        dim: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        max_positions: int = 512,
        segments: int = 2,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        attend_padding: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        # One stream: the pooled vector and all states have one width.
        self.dim = self.text_dim = self.region_dim = dim
        self.std = std
        self.feature_dim = feature_dim
        self.attend_padding = attend_padding
        self.text = TextEmbedding(
            vocab_size, dim, max_positions=max_positions, segments=segments, dropout=dropout, eps=eps
        )
        self.regions = RegionEmbedding(feature_dim, dim, dropout=dropout, eps=eps)
        self.encoder = Encoder(
            layers,
            dim,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
            attention_dropout=attention_dropout,
            eps=eps,
        )
        self.pool = FirstToken(dim)
        # `hidden` stays zero: a Parameter of its own is not reached by `init_bert`.
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        text, regions = require_both(self, inputs, feature_dim=self.feature_dim)
        segment = self.text.segments(1 + regions.image_index)  # row 0 of the table is the text's
        parts = self.text(text), self.regions(regions, segment)
        # nav13n's padding has zero features but real biases, so attending to it changes every score.
        masks = text.mask, torch.ones_like(regions.mask) if self.attend_padding else regions.mask
        return encode_jointly(self.encoder, parts, masks=masks, pool=self.pool, reads=reads)

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def uniter_base(**overrides: Any) -> Uniter:
    """12 layers, width 768: 110 M parameters."""
    return Uniter(**overrides)


def uniter_large(**overrides: Any) -> Uniter:
    """24 layers, width 1024: 336 M parameters."""
    return Uniter(**{"dim": 1024, "heads": 16, "hidden": 4096, "layers": 24, **overrides})


def uniter_tiny(**overrides: Any) -> Uniter:
    """2 layers, width 48, no dropout: learns from scratch in a minute on a CPU.

    With BERT's small initial weights, a task that needs text and image together starts at a saddle point, and
    dropout keeps a model there. Measured on 2,000 miniature memes at a learning rate of 1e-3: a standard
    deviation of 0.2 escapes within 5 epochs.
    """
    sizes = {"vocab_size": 1000, "feature_dim": 64, "dim": 48, "heads": 4, "hidden": 192, "layers": 2}
    return Uniter(**{**sizes, "dropout": 0.0, "attention_dropout": 0.0, "std": 0.2, **overrides})
