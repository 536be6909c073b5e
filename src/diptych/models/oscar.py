"""Oscar and Oscar+ (VinVL): one transformer over text, the names of detected objects, and image regions.

Li et al., 2020, https://arxiv.org/abs/2004.06165; Zhang et al., 2021, https://arxiv.org/abs/2101.00529.
Original: microsoft/Oscar. The object names are the text's second segment (`tags: true` in the processor).
Differences: no three-dimensional attention masks for captioning, and no discrete image codes.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.boxes import corners_size
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require_both
from diptych.nn.readout import FirstToken
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder, encode_jointly
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions


class RegionEmbedding(nn.Module):
    """`dropout(project([feature, box]))`, without position or segment; Oscar+ adds a LayerNorm inside."""

    def __init__(
        self,
        feature_dim: int,
        dim: int,
        *,
        box_numbers: int,
        norm: bool,
        dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        require_sizes(feature_dim=feature_dim, dim=dim)
        self.box_numbers = box_numbers
        self.project = nn.Linear(feature_dim + box_numbers, dim)
        # Oscar's regions enter the transformer unnormalized, though the words beside them are.
        self.norm = nn.LayerNorm(dim, eps=eps) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: PaddedRegions) -> Float[Tensor, "B R D"]:
        numbers = corners_size(regions.boxes)[..., : self.box_numbers]  # Vilio leaves out w h
        x: Tensor = self.dropout(self.norm(self.project(torch.cat([regions.features, numbers], -1))))
        return x


class Oscar(nn.Module):
    """Single-stream encoder over text and regions; pools the first token.

    Args:
        box_numbers: how many of `x1 y1 x2 y2 w h` are appended to a feature: 6, or 4 as in Vilio.
        region_norm: normalize region vectors, as Oscar+ does.
        std: standard deviation of the initial weights.

    Raises:
        ConfigError: `box_numbers` is neither 4 nor 6.
    """

    needs = frozenset({"text", "regions"})

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        feature_dim: int = 2048,
        dim: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        max_positions: int = 512,
        segments: int = 2,
        box_numbers: int = 6,
        region_norm: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if box_numbers not in (4, 6):
            raise ConfigError(f"model.box_numbers is {box_numbers}; expected 6 (Oscar) or 4 (Vilio).")
        # One stream: heads on the pooled vector, on words and on regions have one width.
        self.dim = self.text_dim = self.region_dim = dim
        self.std = std
        self.feature_dim = feature_dim
        self.text = TextEmbedding(
            vocab_size, dim, max_positions=max_positions, segments=segments, dropout=dropout, eps=eps
        )
        # Feature and box share one projection, as in Oscar; UNITER and ViLBERT project both and add.
        self.regions = RegionEmbedding(
            feature_dim, dim, box_numbers=box_numbers, norm=region_norm, dropout=dropout, eps=eps
        )
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
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        text, regions = require_both(self, inputs, feature_dim=self.feature_dim)
        # Object names are part of the text and so have positions and a segment; regions have neither.
        parts, masks = (self.text(text), self.regions(regions)), (text.mask, regions.mask)
        return encode_jointly(self.encoder, parts, masks=masks, pool=self.pool, reads=reads)

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def oscar_base(**overrides: Any) -> Oscar:
    """12 layers, width 768: 111 M parameters; Oscar+ with `region_norm=True`."""
    return Oscar(**overrides)


def oscar_large(**overrides: Any) -> Oscar:
    """24 layers, width 1024: 337 M parameters; Oscar+ with `region_norm=True`."""
    return Oscar(**{"dim": 1024, "heads": 16, "hidden": 4096, "layers": 24, **overrides})


def oscar_tiny(**overrides: Any) -> Oscar:
    """2 layers, width 48, no dropout: learns from scratch in a minute on a CPU.

    Measured on 2,000 miniature memes at a learning rate of 1e-3: a standard deviation of 0.1 escapes the
    saddle point (see `uniter_tiny`) in 2 to 4 epochs. 0.2, which suits models that normalize their regions,
    does not in 12.
    """
    sizes = {"vocab_size": 1000, "feature_dim": 64, "dim": 48, "heads": 4, "hidden": 192, "layers": 2}
    return Oscar(**{**sizes, "dropout": 0.0, "attention_dropout": 0.0, "std": 0.1, **overrides})
