"""VL-BERT: one transformer over text and regions, where every word also carries what it is seen with.

Su et al., 2020, https://arxiv.org/abs/1908.08530. Original: jackroos/VL-BERT. MM-BERT (phaedonmit/VL-BERT) is
the same network over a multilingual vocabulary. `EndToEnd` learns the image network below it, as the
originals do. Differs in layout: rows stay padded, which leaves every valid state
unchanged; the model, not the loader, adds the whole image.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn.init import init_bert
from diptych.nn.modalities import require, require_width
from diptych.nn.readout import FirstToken, before_end
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder, encode_jointly
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions, PaddedText

REGION_SEGMENT = 2  # after the two of the text


def box_waves(boxes: Float[Tensor, "B R 4"], dim: int) -> Float[Tensor, "B R W"]:
    """Center and size of boxes, in percent, each as sines and cosines of `dim / 8` frequencies.

    These fall from 1 to almost 1/1000; the layout is sines, then cosines, of x, then y, width and height.
    """
    low, high = boxes.split(2, -1)
    percent = 100 * torch.cat([(low + high) / 2, high - low], -1)
    count = dim // 8
    angles = percent[..., None] * 1000 ** -(torch.arange(count, device=boxes.device) / count)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(2)


class RegionEmbedding(nn.Module):
    """`relu(project(dropout([box waves | feature])))` of the whole image and of every region.

    Args:
        box_dim: width of the waves.
        whole_image: put a region before the others: the mean of the features (`PaddedRegions.mean`), and the
            box of the whole image. False takes the first region of every row for it.
        hide_features: see `VlBert`.
    """

    def __init__(
        self,
        feature_dim: int,
        dim: int,
        *,
        box_dim: int,
        whole_image: bool = True,
        hide_features: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        require_sizes(feature_dim=feature_dim, dim=dim, box_dim=box_dim)
        if box_dim % 8:
            raise ConfigError(f"model.box_dim is {box_dim}; expected a multiple of 8.")
        self.box_dim, self.whole_image, self.hide_features = box_dim, whole_image, hide_features
        self.project, self.dropout = nn.Linear(box_dim + feature_dim, dim), nn.Dropout(dropout)
        self.hidden = nn.Parameter(torch.zeros(feature_dim))  # stands in for regions that pre-training hides

    def forward(self, regions: PaddedRegions) -> tuple[Float[Tensor, "B S V"], Bool[Tensor, "B S"]]:
        """The embedded regions and which of them are real; one more than given with the whole image."""
        features, boxes, mask = regions.features, regions.boxes, regions.mask
        if regions.hidden is not None and self.hide_features:
            features = torch.where(regions.hidden[..., None], self.hidden, features)
        if self.whole_image:
            mean = regions.mean(features)
            # The original's box ends at the last pixel, not behind it: of the picture as it came, and of the
            # resized one, where that is smaller.
            sizes = regions.sizes
            sizes = sizes if regions.resized is None else sizes.minimum(regions.resized)
            whole = torch.cat([torch.zeros_like(sizes), 1 - 1 / sizes], -1)
            features, boxes = torch.cat([mean[:, None], features], 1), torch.cat([whole[:, None], boxes], 1)
            mask = torch.cat([mask.any(1, keepdim=True), mask], 1)
        both = torch.cat([box_waves(boxes, self.box_dim), features], -1)
        return self.project(self.dropout(both)).relu(), mask


class Visual(nn.Module):
    """What a place of the sequence is seen with: `norm(project(x))`, or `scale * project(x)`.

    Args:
        norm: False takes one learned number instead of a LayerNorm.
        scale: initial value of that number, or of the weight of the LayerNorm.
    """

    def __init__(self, visual_dim: int, dim: int, *, norm: bool, scale: int | float, eps: float) -> None:
        super().__init__()
        self.project = nn.Linear(visual_dim, dim) if visual_dim != dim else nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=eps) if norm else None
        self.scale = None if norm else nn.Parameter(torch.tensor(float(scale)))

    def forward(self, x: Float[Tensor, "B S V"]) -> Float[Tensor, "B S D"]:
        x = self.project(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.scale is None else x * self.scale


class JointEmbedding(nn.Module):
    """`dropout(norm(word + visual + position + segment))` of the text, and of `[regions | END]`.

    Text counts its real tokens; all regions of a row stand at the place after them, END one further.

    Args:
        first_position: row of the position table of the first token; RoBERTa's tables begin with 2.
        visual_norm, visual_scale: see `Visual`.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        *,
        visual_dim: int,
        max_positions: int = 512,
        first_position: int = 0,
        visual_norm: bool = True,
        visual_scale: int | float = 0.0,
        dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.first_position = first_position
        self.words = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(max_positions, dim)
        self.segments = nn.Embedding(REGION_SEGMENT + 1, dim)
        self.end = nn.Parameter(torch.zeros(dim))
        self.text_visual, self.region_visual = (
            Visual(visual_dim, dim, norm=visual_norm, scale=visual_scale, eps=eps) for _ in range(2)
        )
        self.norm, self.dropout = nn.LayerNorm(dim, eps=eps), nn.Dropout(dropout)

    def forward(
        self,
        text: PaddedText,
        carried: Float[Tensor, "B #T V"],
        *,
        regions: Float[Tensor, "B S V"],
        words: Float[Tensor, "*#BS D"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B Q D"]]:
        """The embedded text, and the embedded regions with END behind them.

        Args:
            carried: what each token is seen with, or one for all tokens of a row.
            words: what stands for a word at each region.
        """
        rows, length = text.ids.shape
        last = length + 1 + self.first_position
        if last >= self.positions.num_embeddings:
            raise ConfigError(
                f"a text of {length} tokens and what follows it need {last + 1} positions, the model has "
                f"{self.positions.num_embeddings}; lower processor.max_tokens."
            )
        tokens = self.words(text.ids) + self.text_visual(carried)
        others = torch.cat([words + self.region_visual(regions), self.end.expand(rows, 1, -1)], 1)
        count = text.mask.sum(1, keepdim=True)
        places = torch.cat([count.expand(-1, regions.shape[1]), count + 1], 1)
        return (
            self._place(tokens, (text.mask.cumsum(1) - 1).clamp(min=0), self.segments(text.segments)),
            self._place(others, places, self.segments.weight[REGION_SEGMENT]),
        )

    def _place(
        self, x: Float[Tensor, "B L D"], places: Int[Tensor, "B L"], segment: Float[Tensor, "*#BL D"]
    ) -> Float[Tensor, "B L D"]:
        placed: Tensor = self.dropout(self.norm(x + self.positions(places + self.first_position) + segment))
        return placed


class VlBert(nn.Module):
    """Single-stream encoder over text and regions.

    A token that names a region (`PaddedText.mentions`) carries that region, every other one the whole image,
    and in a row without regions a vector of its own. Rows may all be without: `Inputs.regions` None.

    Args:
        box_dim: width of the sines and cosines of a box.
        visual_dim: width of an embedded region; None means `dim`.
        visual_norm: normalize what a place is seen with; False multiplies it with a learned number.
        visual_scale: initial weight of that. 0, as published, starts from BERT's own states.
        first_position: row of the position table of the first token; RoBERTa's tables begin with 2.
        readout: `first` pools the first token; `before_end` reads the state of the token before the last, as
            the original does for questions, which end in `[MASK] [SEP]`.
        whole_image: put a region of the whole image before the others. False takes the first region of every
            row for it.
        hide_features: the features of regions that pre-training hides give way to a learned vector. False
            keeps them, as the original does end to end, where they show a hole in the pixels.
        learned_blank: what text carries in a row without regions is learned; False is zeros, as in MM-BERT's
            training on text pairs and translation.
        blind: regions keep their places but show nothing and text carries what it carries without regions;
            reproduces MM-BERT's retrieval and word translation without vision.
        std: standard deviation of the initial weights.

    Raises:
        ConfigError: there is no such readout, or `box_dim` is no multiple of 8.
    """

    needs = frozenset({"text", "regions"})

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        feature_dim: int = 2048,
        box_dim: int = 2048,
        dim: int = 768,
        visual_dim: int | None = None,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        max_positions: int = 512,
        first_position: int = 0,
        visual_norm: bool = True,
        visual_scale: int | float = 0.0,
        readout: str = "first",
        whole_image: bool = True,
        hide_features: bool = True,
        learned_blank: bool = True,
        blind: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if readout not in ("first", "before_end"):
            raise ConfigError(f"model.readout is {readout!r}; expected 'first' or 'before_end'.")
        self.dim = self.text_dim = self.region_dim = dim
        self.std = std
        self.feature_dim, self.visual_dim, self.blind = feature_dim, visual_dim or dim, blind
        self.regions = RegionEmbedding(
            feature_dim,
            self.visual_dim,
            box_dim=box_dim,
            whole_image=whole_image,
            hide_features=hide_features,
            dropout=dropout,
        )
        self.embedding = JointEmbedding(
            vocab_size,
            dim,
            visual_dim=self.visual_dim,
            max_positions=max_positions,
            first_position=first_position,
            visual_norm=visual_norm,
            visual_scale=visual_scale,
            dropout=dropout,
            eps=eps,
        )
        self.region_word = nn.Parameter(torch.zeros(dim))  # the original's [IMG] token
        self.hidden_word = nn.Parameter(torch.zeros(dim))  # instead of it at regions that pre-training hides
        self.blank = nn.Parameter(torch.zeros(self.visual_dim)) if learned_blank else None
        rates = {"dropout": dropout, "attention_dropout": attention_dropout}
        self.encoder = Encoder(layers, dim, heads=heads, hidden=hidden, eps=eps, **rates)
        self.pool = FirstToken(dim) if readout == "first" else None
        self._init(std, visual_scale)

    def _init(self, std: float, visual_scale: int | float) -> None:
        init_bert(self, std=std)
        for vector in (self.region_word, self.hidden_word, self.embedding.end, self.blank):
            if vector is not None:
                nn.init.normal_(vector, std=std)
        for part in (self.embedding.text_visual, self.embedding.region_visual):
            if part.norm is not None:
                nn.init.constant_(part.norm.weight, visual_scale)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        text, regions = require(self, "text", inputs.text), inputs.regions
        if regions is None:
            embedded, mask = self.region_word.new_zeros(len(text.ids), 0, self.visual_dim), text.mask[:, :0]
        else:
            require_width(self, regions, feature_dim=self.feature_dim)
            embedded, mask = self.regions(regions)
        words = self._region_words(regions)
        if self.blind:
            embedded, words = torch.zeros_like(embedded), torch.zeros_like(words)
        parts = self.embedding(text, self._carried(text, embedded, mask), regions=embedded, words=words)
        masks = text.mask, functional.pad(mask, (0, 1), value=True)
        if self.pool is None and "pooled" in reads:
            reads |= {"text"}
        pool = self.pool or partial(before_end, mask=text.mask)
        encoding = encode_jointly(self.encoder, parts, masks=masks, pool=pool, reads=reads)
        states = None if regions is None else encoding.regions
        if states is not None:  # what the model added, the whole image and END, stays inside
            states = states[:, int(self.regions.whole_image) : -1]
        return Encoding(pooled=encoding.pooled, text=encoding.text, regions=states)

    def _region_words(self, regions: PaddedRegions | None) -> Float[Tensor, "*#BS D"]:
        if regions is None or regions.hidden is None:
            return self.region_word
        hidden = functional.pad(regions.hidden, (int(self.regions.whole_image), 0))
        return torch.where(hidden[..., None], self.hidden_word, self.region_word)

    def _carried(
        self, text: PaddedText, embedded: Float[Tensor, "B S V"], mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B #T V"]:
        rows, count, width = embedded.shape
        blank = embedded.new_zeros(width) if self.blank is None else self.blank
        if self.blind or not count:
            return blank.expand(rows, 1, -1)
        if text.mentions is None:
            named = embedded[:, :1]
        else:
            index = text.mentions + 1 if self.regions.whole_image else text.mentions.clamp(min=0)
            named = embedded.gather(1, index[..., None].expand(-1, -1, width))
        return torch.where(mask.any(1)[:, None, None], named, blank)

    def word_embedding(self) -> nn.Embedding:
        return self.embedding.words


def vlbert_base(**overrides: Any) -> VlBert:
    """12 layers, width 768: 113 M parameters."""
    return VlBert(**overrides)


def vlbert_large(**overrides: Any) -> VlBert:
    """24 layers, width 1024: 339 M parameters."""
    return VlBert(**{"dim": 1024, "heads": 16, "hidden": 4096, "layers": 24, **overrides})


def mmbert_base(**overrides: Any) -> VlBert:
    """`vlbert_base` over the 119,547 words of BERT's multilingual cased vocabulary: 181 M parameters."""
    return vlbert_base(**{"vocab_size": 119547, **overrides})


def vlbert_tiny(**overrides: Any) -> VlBert:
    """2 layers, width 48, no dropout: learns from scratch in a minute on a CPU.

    The wide initial weights are UNITER-tiny's, for the same reason: small ones leave it on a saddle. What is
    seen counts from the first step on; where it counts as much as the words, pictures are learned by heart.
    """
    sizes = {"vocab_size": 1000, "feature_dim": 64, "box_dim": 256, "dim": 48, "heads": 4, "hidden": 192}
    learning = {"dropout": 0.0, "attention_dropout": 0.0, "visual_scale": 0.2, "std": 0.2}
    return VlBert(**{**sizes, "layers": 2, **learning, **overrides})
