"""ERNIE-ViL: two streams that attend to each other, pre-trained on scene graphs.

Yu et al., 2021, https://arxiv.org/abs/2006.16934. Original: PaddlePaddle/ERNIE, branch repro, on Paddle.
Differences: the states of padded positions, which are never used, and the initial weights, which the original
truncates at two standard deviations.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from diptych.nn.attention import AttentionPlaces
from diptych.nn.coattention import SIDES, BoxedRegions, CoEncoder, FusedPool, Sizes
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require_both
from diptych.types import EVERYTHING, Encoding, Inputs

TEXT = Sizes(dim=768, heads=12, hidden=3072, layers=12)
VISION = Sizes(dim=1024, heads=8, hidden=1024, layers=6)
BRIDGE = Sizes(dim=1024, heads=8)
MEETINGS = ((6, 0), (7, 1), (8, 2), (9, 3), (10, 4), (11, 5))  # numbers of layers before each co-attention


class ErnieVil(nn.Module):
    """Two-stream encoder; its pooled vector is the product of the first token's and the whole image's.

    Args:
        bridge: width and heads of the co-attention; the pooled vector has the same width.
        meetings: for each co-attention layer, the numbers of text and of vision layers before it. The
            original has one more layer of each stream after the last.
        fusion: `product` or `sum` of the two pooled vectors.
        whole_image: put a region for the whole image, whose feature is the mean, before the others.
        std: standard deviation of the initial weights.
    """

    needs = frozenset({"text", "regions"})
    shares_text = True

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        feature_dim: int = 2048,
        text: Sizes = TEXT,
        vision: Sizes = VISION,
        bridge: Sizes = BRIDGE,
        meetings: Sequence[Sequence[int]] = MEETINGS,
        max_positions: int = 512,
        segments: int = 4,
        fusion: str = "product",
        whole_image: bool = True,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-5,  # Paddle's default; BERT has 1e-12
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.dim, self.text_dim, self.region_dim = bridge.dim, text.dim, vision.dim
        self.std = std
        self.feature_dim = feature_dim
        self.text = TextEmbedding(
            vocab_size,
            text.dim,
            max_positions=max_positions,
            segments=segments,
            word_padding=None,  # unlike in BERT, the padding token's vector is trained
            dropout=dropout,
            eps=eps,
        )
        self.regions = BoxedRegions(
            feature_dim, vision.dim, whole_image=whole_image, dropout=dropout, eps=eps
        )
        self.encoder = CoEncoder(
            text,
            vision,
            bridge=bridge,
            meetings=meetings,
            dropout=dropout,
            attention_dropout=attention_dropout,
            eps=eps,
        )
        self.pool = FusedPool(text.dim, vision.dim, bridge.dim, fusion=fusion)
        self.dropout = nn.Dropout(dropout)
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        words, areas = require_both(self, inputs, feature_dim=self.feature_dim)
        # Padded regions are masked per key; the original masks pairs of query and key, which only changes the
        # states of padded queries.
        regions, region_mask = self.regions(areas)
        text, regions = self.encoder(
            self.text(words), words.mask, regions, region_mask, reads, spread=words.spread
        )
        # The model added the whole-image region itself, so callers do not get its state.
        return Encoding(
            pooled=self.dropout(self.pool(text, regions)) if "pooled" in reads else None,
            text=text if "text" in reads else None,
            regions=regions[:, int(self.regions.whole_image) :] if "regions" in reads else None,
        )

    def layer_powers(self) -> dict[str, int]:
        """Exponents of layer-wise learning-rate decay, by prefix of parameter names.

        The original counts depth over both streams: from the first co-attention layer on, every co-attention
        layer is one level, and the text and vision layer after it are the next one. Poolers and the norms of
        the embeddings have the full rate.
        """
        text, vision = len(self.encoder.text_layers), len(self.encoder.vision_layers)
        # `alone` text layers lie below the first co-attention layer; `top` is the number of levels.
        alone, top = text - vision, text + vision
        # The first matching prefix counts, so the norms come before the tables.
        powers = {"text.norm": 0, "text.": top + 1, "regions.norm": 0, "regions.": top - alone + 1}
        for layer in range(text):
            # Example of ernievil_base, 12 text and 6 vision layers: `alone` 6, `top` 18. Text layer 0 has the
            # power 18, layer 5 13; meeting 0 has 12, text layer 6 and vision layer 0 11, meeting 1 10, and so
            # on down to 1.
            depth = layer if layer < alone else 2 * layer - alone + 1
            powers[f"encoder.text_layers.{layer}."] = top - depth
        for layer in range(vision):
            powers[f"encoder.meetings.{layer}."] = top - alone - 2 * layer
            powers[f"encoder.vision_layers.{layer}."] = top - alone - 2 * layer - 1
        return powers

    def attention_places(self) -> AttentionPlaces:
        return AttentionPlaces(
            sides=SIDES,
            before_regions=("whole image",) if self.regions.whole_image else (),
            pooled="first_of_both",
        )

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def ernievil_base(**overrides: Any) -> ErnieVil:
    """12 text layers of width 768, 6 vision and 6 co-attention layers of width 1024: 236 M parameters."""
    return ErnieVil(**overrides)


def ernievil_large(**overrides: Any) -> ErnieVil:
    """24 text, 6 vision and 6 co-attention layers, all of width 1024: 565 M parameters."""
    sizes = {
        "text": Sizes(dim=1024, heads=16, hidden=4096, layers=24),
        "vision": Sizes(dim=1024, heads=16, hidden=4096, layers=6),
        "bridge": Sizes(dim=1024, heads=16),
        "meetings": tuple((12 + text, vision) for text, vision in MEETINGS),
    }
    return ErnieVil(**{**sizes, **overrides})


def ernievil_tiny(**overrides: Any) -> ErnieVil:
    """2 layers per stream and 2 co-attention layers of width 48, no dropout; weights as in `vilbert_tiny`."""
    sizes = {
        "text": Sizes(dim=48, heads=4, hidden=192, layers=2),
        "vision": Sizes(dim=48, heads=4, hidden=96, layers=2),
        "bridge": Sizes(dim=48, heads=4),
        "meetings": ((0, 0), (1, 1)),
    }
    defaults = {"vocab_size": 1000, "feature_dim": 64, "dropout": 0.0, "attention_dropout": 0.0, "std": 0.1}
    return ErnieVil(**{**sizes, **defaults, **overrides})
