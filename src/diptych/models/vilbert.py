"""ViLBERT: a text stream and a region stream that attend to each other; DeVLBERT is the same network.

Lu et al., 2019, https://arxiv.org/abs/1908.02265, and 2020, https://arxiv.org/abs/1912.02315 (12-in-1).
Original: facebookresearch/vilbert-multi-task. DeVLBERT: Zhang et al., 2020, https://arxiv.org/abs/2008.06884,
shengyuzhang/DeVLBert. Differs in where the whole-image region comes from: the originals' loaders put it
before the others, here the model does.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.coattention import BoxedRegions, CoEncoder, FusedPool, Sizes
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require_both
from diptych.types import EVERYTHING, Encoding, Inputs

TEXT = Sizes(dim=768, heads=12, hidden=3072, layers=12)
VISION = Sizes(dim=1024, heads=8, hidden=1024, layers=6)
BRIDGE = Sizes(dim=1024, heads=8)
MEETINGS = ((6, 0), (7, 1), (8, 2), (9, 3), (10, 4), (11, 5))


class Vilbert(nn.Module):
    """Two-stream encoder; pools the first token and the whole-image region, and multiplies them.

    Args:
        bridge: width and heads of the co-attention; its width is that of the pooled vector.
        meetings: of each co-attention layer, how many text and how many vision layers come before it.
        fusion: of the two pooled vectors, `product` or `sum`.
        tasks: rows of the table of task tokens; 12-in-1 has 20, the others have none.
        task: row of the token that follows the first one of every text; None inserts none.
        whole_image: put a region of the whole image, with the mean of the features, before the others. False
            reproduces Vilio, which pools the first detected region instead.
        box_area: False reproduces Vilio, which shows the four corners only.
        attend_padding: attend to padded regions as if they were real, as Vilio does; a score then depends on
            what else is in the batch.
        std: standard deviation of the initial weights.
    """

    needs = frozenset({"text", "regions"})

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
            raise ConfigError(f"task is {task}, but the table of task tokens has {tasks} rows; say tasks.")
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
        self.dropout = nn.Dropout(dropout)
        init_bert(self, std=std)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        words, areas = require_both(self, inputs, feature_dim=self.feature_dim)
        text, text_mask = self._with_task(self.text(words), words.mask)
        regions, region_mask = self.regions(areas)
        if self.attend_padding:
            region_mask = torch.ones_like(region_mask)
        text, regions = self.encoder(text, text_mask, regions, region_mask, reads)
        pooled = self.dropout(self.pool(text, regions)) if "pooled" in reads else None
        # What the model added, the token of the task and the whole image, stays inside.
        if self.task is not None:
            text = torch.cat([text[:, :1], text[:, 2:]], 1)
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
        token = self.text.dropout(self.text.norm(self.tasks.weight[self.task])).expand(len(x), 1, -1)
        return torch.cat([x[:, :1], token, x[:, 1:]], 1), torch.cat([mask[:, :1], mask], 1)

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


def vilbert_base(**overrides: Any) -> Vilbert:
    """12 text layers of width 768, 6 vision layers and 6 meetings of width 1024: 236 M parameters."""
    return Vilbert(**overrides)


def devlbert_base(**overrides: Any) -> Vilbert:
    """`vilbert_base`, which DeVLBERT pre-trains with interventions and reads with a weight-normed head."""
    return vilbert_base(**overrides)


def vilbert_tiny(**overrides: Any) -> Vilbert:
    """2 layers and 2 meetings of width 48, no dropout: learns from scratch in a minute on a CPU.

    Large initial weights for the reason that `uniter_tiny` gives; the product of two streams wants 0.1, with
    0.2 it leaves the saddle later, with a learning rate above 1e-3 not at all.
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
    """`vilbert_tiny`, to be read with a weight-normed head."""
    return vilbert_tiny(**overrides)
