"""ViLBERT: a text stream and a region stream that attend to each other; DeVLBERT is the same network.

Lu et al., 2019, https://arxiv.org/abs/1908.02265, and 2020, https://arxiv.org/abs/1912.02315 (12-in-1).
Original: facebookresearch/vilbert-multi-task. DeVLBERT: Zhang et al., 2020, https://arxiv.org/abs/2008.06884,
shengyuzhang/DeVLBert. Difference: the model adds the region for the whole image, where the originals' data
loaders do.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.errors import ConfigError
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


class Vilbert(nn.Module):
    """Two-stream encoder; its pooled vector is the product of the first token's and the whole image's.

    Args:
        bridge: width and heads of the co-attention; the pooled vector has the same width.
        meetings: for each co-attention layer, the numbers of text and of vision layers before it.
        fusion: `product` or `sum` of the two pooled vectors.
        tasks: rows of the table of task tokens; 12-in-1 has 20, the others have none.
        task: row of the task token to insert after the first token of every text; None inserts none.
        whole_image: put a region for the whole image, whose feature is the mean, before the others. False
            reproduces Vilio, which pools the first detected region instead.
        box_area: append the area to the four corners of a box. False reproduces Vilio.
        attend_padding: attend to padded regions as if they were real, as Vilio does. A score then depends on
            the other rows of the batch.
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
        segments: int = 2,
        fusion: str = "product",
        tasks: int = 0,
        task: int | None = None,
        whole_image: bool = True,
        box_area: bool = True,
        attend_padding: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if task is not None and not 0 <= task < tasks:
            raise ConfigError(
                f"task is {task}, but the table of task tokens has {tasks} rows; set tasks above {task}."
            )
        # Three widths: heads on the pooled vector, on words and on regions are built from them.
        self.dim, self.text_dim, self.region_dim = bridge.dim, text.dim, vision.dim
        self.std = std
        self.feature_dim = feature_dim
        self.task, self.attend_padding = task, attend_padding
        self.text = TextEmbedding(
            vocab_size, text.dim, max_positions=max_positions, segments=segments, dropout=dropout, eps=eps
        )
        self.tasks = nn.Embedding(tasks, text.dim) if tasks else None
        self.regions = BoxedRegions(
            feature_dim, vision.dim, box_area=box_area, whole_image=whole_image, dropout=dropout, eps=eps
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
        # On the fused vector: a product of two dropped vectors would drop twice.
        self.dropout = nn.Dropout(dropout)
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        words, areas = require_both(self, inputs, feature_dim=self.feature_dim)
        text, text_mask = self._with_task(self.text(words), words.mask)
        regions, region_mask = self.regions(areas)
        if self.attend_padding:
            # Vilio passes no region mask; its feature files have equally many regions for all pictures.
            region_mask = torch.ones_like(region_mask)
        text, regions = self.encoder(text, text_mask, regions, region_mask, reads, spread=words.spread)
        pooled = self.dropout(self.pool(text, regions)) if "pooled" in reads else None
        # The model added the task token and the whole-image region itself: callers do not get their states.
        if self.task is not None:
            text = torch.cat([text[:, :1], text[:, 2:]], 1)  # without the task token in second place
        return Encoding(
            pooled=pooled,
            text=text if "text" in reads else None,
            regions=regions[:, int(self.regions.whole_image) :] if "regions" in reads else None,
        )

    def _with_task(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B S D"], Bool[Tensor, "B S"]]:
        if self.task is None or self.tasks is None:
            return x, mask
        # As in the original, the token is normalized by itself: it has no position and no segment.
        token = self.text.dropout(self.text.norm(self.tasks.weight[self.task])).expand(len(x), 1, -1)
        # The first token is real in every row, so its mask serves the inserted token, too.
        return torch.cat([x[:, :1], token, x[:, 1:]], 1), torch.cat([mask[:, :1], mask], 1)

    def attention_places(self) -> AttentionPlaces:
        return AttentionPlaces(
            sides=SIDES,
            after_first=() if self.task is None else ("task",),
            before_regions=("whole image",) if self.regions.whole_image else (),
            pooled="first_of_both",
        )

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def vilbert_base(**overrides: Any) -> Vilbert:
    """12 text layers of width 768, 6 vision and 6 co-attention layers of width 1024: 236 M parameters."""
    return Vilbert(**overrides)


def devlbert_base(**overrides: Any) -> Vilbert:
    """`vilbert_base`; DeVLBERT pre-trains it with interventions and adds a weight-normalized head."""
    return vilbert_base(**overrides)


def vilbert_tiny(**overrides: Any) -> Vilbert:
    """2 layers per stream and 2 co-attention layers of width 48, no dropout: learns in a minute on a CPU.

    Large initial weights for the reason given in `uniter_tiny`. The product of two streams needs a standard
    deviation of 0.1: with 0.2 it escapes the saddle point later, with a learning rate above 1e-3 never.
    """
    sizes = {
        "text": Sizes(dim=48, heads=4, hidden=192, layers=2),
        "vision": Sizes(dim=48, heads=4, hidden=96, layers=2),
        "bridge": Sizes(dim=48, heads=4),
        "meetings": ((0, 0), (1, 1)),
    }
    defaults = {"vocab_size": 1000, "feature_dim": 64, "dropout": 0.0, "attention_dropout": 0.0, "std": 0.1}
    return Vilbert(**{**sizes, **defaults, **overrides})


def devlbert_tiny(**overrides: Any) -> Vilbert:
    """`vilbert_tiny`, for use with a weight-normalized head."""
    return vilbert_tiny(**overrides)
