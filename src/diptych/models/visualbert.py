"""VisualBERT: one transformer over text tokens and image regions, which share one LayerNorm.

Li et al., 2019, https://arxiv.org/abs/1908.03557. Originals: uclanlp/visualbert and facebookresearch/mmf;
the versions of Hugging Face and Vilio (V) differ only in the segment of the regions. The model ignores boxes.
Difference: no bypass layer, which no published weights have.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.attention import AttentionPlaces
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require_both
from diptych.nn.readout import FirstToken, LayerAverage, before_end
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder, encode_jointly
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions, PaddedText

READOUTS = ("first", "before_end", "layer_average")


class RegionEmbedding(nn.Module):
    """`feature + segment + position`, with its own tables; the LayerNorm is shared with the text."""

    def __init__(self, feature_dim: int, dim: int, *, max_positions: int, segments: int) -> None:
        super().__init__()
        require_sizes(feature_dim=feature_dim, dim=dim)
        self.feature = nn.Linear(feature_dim, dim)
        # Tables of its own: the originals start them as copies of the text's and then train them apart.
        self.segments = nn.Embedding(segments, dim)
        # Published weights hold the whole table, but the originals read row 0 only.
        self.positions = nn.Embedding(max_positions, dim)

    def forward(
        self, regions: PaddedRegions, segment: Int[Tensor, "B R"], named: Float[Tensor, "B R D"] | None
    ) -> Float[Tensor, "B R D"]:
        x: Tensor = self.feature(regions.features) + self.segments(segment) + self.positions.weight[0]
        return x if named is None else x + named


class VisualBert(nn.Module):
    """Single-stream encoder over text and regions.

    If words of the text name a region (`PaddedText.mentions`), the mean of their position vectors is added to
    that region's embedding.

    Args:
        segments: rows of each segment table; text and regions have one table each.
        region_segment: segment of the regions of a row's first image; the regions of image n have segment
            `region_segment + n`. 0 in the originals, 1 in Vilio and by default in Hugging Face's version.
        readout: `first` pools the first token. `before_end` takes the state of the second-to-last token, as
            the originals do for VQA, where uclanlp's questions end in `[MASK] [SEP]`. `layer_average` is
            Vilio's V with `--reg`: a learned average of the first token's states after every layer.
        std: standard deviation of the initial weights.

    Raises:
        ConfigError: `region_segment` is not a row of the table, or `readout` is unknown.
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
        region_segment: int = 0,
        readout: str = "first",
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if not 0 <= region_segment < segments:
            raise ConfigError(
                f"model.region_segment is {region_segment}; expected a number from 0 to {segments - 1}."
            )
        if readout not in READOUTS:
            raise ConfigError(f"model.readout is {readout!r}; expected one of {READOUTS}.")
        self.dim = self.text_dim = self.region_dim = dim
        self.std = std
        self.feature_dim = feature_dim
        self.region_segment = region_segment
        self.text = TextEmbedding(
            vocab_size, dim, max_positions=max_positions, segments=segments, dropout=dropout, eps=eps
        )
        self.regions = RegionEmbedding(feature_dim, dim, max_positions=max_positions, segments=segments)
        self.encoder = Encoder(
            layers,
            dim,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
            attention_dropout=attention_dropout,
            eps=eps,
        )
        # The other readouts leave the pooler untrained, so the model has none:
        # DDP would wait for its gradients.
        self.pool = FirstToken(dim) if readout == "first" else None
        self.average = LayerAverage(layers) if readout == "layer_average" else None
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        text, regions = require_both(self, inputs, feature_dim=self.feature_dim)
        segment = self.region_segment + regions.image_index
        named = None if text.mentions is None else self.named(text, regions)
        # Regions pass the LayerNorm and the dropout of the text.
        embedded = self.text.dropout(self.text.norm(self.regions(regions, segment, named)))
        parts, masks = (self.text(text), embedded), (text.mask, regions.mask)
        if self.average is not None and "pooled" in reads:
            # The average needs the first token of every layer, so no layer can skip positions.
            every = self.encoder.states(torch.cat(parts, 1), torch.cat(masks, 1))
            length = text.mask.shape[1]
            last = every[-1]
            return Encoding(pooled=self.average(every), text=last[:, :length], regions=last[:, length:])
        if self.pool is None and "pooled" in reads:
            reads |= {"text"}  # `before_end` needs more than the first state
        pool = self.pool or partial(before_end, mask=text.mask)
        return encode_jointly(self.encoder, parts, masks=masks, pool=pool, reads=reads)

    def named(self, text: PaddedText, regions: PaddedRegions) -> Float[Tensor, "B R D"]:
        """Mean position vector of the words that name each region; zeros for a region without a name."""
        assert text.mentions is not None
        numbers = torch.arange(regions.mask.shape[1], device=text.ids.device)
        # B x R x T: whether token t names region r. The matrix product below averages over these tokens.
        naming = (text.mentions[:, None] == numbers[:, None]) & text.mask[:, None]
        # `clamp`: a region that no word names gets zeros and not NaN.
        share = naming / naming.sum(-1, keepdim=True).clamp(min=1)
        positions: Tensor = share @ self.text.positions.weight[: text.ids.shape[1]]
        return positions

    def attention_places(self) -> AttentionPlaces:
        first = self.pool is not None or self.average is not None
        return AttentionPlaces(pooled="first" if first else "before_end")

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def visualbert_base(**overrides: Any) -> VisualBert:
    """12 layers, width 768: 111 M parameters."""
    return VisualBert(**overrides)


def visualbert_tiny(**overrides: Any) -> VisualBert:
    """2 layers, width 48, no dropout: learns from scratch in a minute on a CPU.

    Large initial weights for the reason given in `uniter_tiny`.
    """
    sizes = {"vocab_size": 1000, "feature_dim": 64, "dim": 48, "heads": 4, "hidden": 192, "layers": 2}
    return VisualBert(**{**sizes, "dropout": 0.0, "attention_dropout": 0.0, "std": 0.2, **overrides})
