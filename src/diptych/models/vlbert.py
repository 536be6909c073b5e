"""VL-BERT: one transformer over text and regions, in which every token also has a visual embedding.

Su et al., 2020, https://arxiv.org/abs/1908.08530. Original: jackroos/VL-BERT. MM-BERT (phaedonmit/VL-BERT) is
the same network with a multilingual vocabulary. `EndToEnd` trains the image network below it, as the
originals do. Differences: rows stay padded, which leaves the states of real positions unchanged; and the
model adds the region for the whole image, where the original's data loader does.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn.attention import AttentionPlaces
from diptych.nn.init import init_bert
from diptych.nn.modalities import require, require_width
from diptych.nn.readout import FirstToken, before_end
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder, encode_jointly
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions, PaddedText

REGION_SEGMENT = 2  # segments 0 and 1 belong to the text


def box_waves(boxes: Float[Tensor, "B R 4"], dim: int) -> Float[Tensor, "B R W"]:
    """Encode the center and size of boxes, in percent, as sines and cosines of `dim / 8` frequencies.

    The frequencies fall from 1 to almost 1/1000. The layout is x, y, width, height; each has its sines first,
    then its cosines.
    """
    low, high = boxes.split(2, -1)
    percent = 100 * torch.cat([(low + high) / 2, high - low], -1)
    count = dim // 8
    # 1000 and the percent are the original's.
    angles = percent[..., None] * 1000 ** -(torch.arange(count, device=boxes.device) / count)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(2)


class RegionEmbedding(nn.Module):
    """`relu(project(dropout([box waves | feature])))` for the whole image and for every region.

    Args:
        box_dim: width of the encoded box.
        whole_image: put a region before the others whose feature is the mean (`PaddedRegions.mean`) and whose
            box is the whole image. False means that the first region of every row already is that region.
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
        self.hidden = nn.Parameter(torch.zeros(feature_dim))  # feature of regions that pre-training hides

    def forward(self, regions: PaddedRegions) -> tuple[Float[Tensor, "B S V"], Bool[Tensor, "B S"]]:
        """Return embedded regions and their mask; S is R, or R + 1 with the whole image."""
        features, boxes, mask = regions.features, regions.boxes, regions.mask
        if regions.hidden is not None and self.hide_features:
            features = torch.where(regions.hidden[..., None], self.hidden, features)
        if self.whole_image:
            mean = regions.mean(features)
            # In the original the box of the whole image ends at the last pixel (width - 1), not at the width.
            # Its loader counts pixels of the resized picture if that is smaller than the original picture.
            sizes = regions.sizes
            sizes = sizes if regions.resized is None else sizes.minimum(regions.resized)
            whole = torch.cat([torch.zeros_like(sizes), 1 - 1 / sizes], -1)
            features, boxes = torch.cat([mean[:, None], features], 1), torch.cat([whole[:, None], boxes], 1)
            mask = torch.cat([mask.any(1, keepdim=True), mask], 1)
        both = torch.cat([box_waves(boxes, self.box_dim), features], -1)
        return self.project(self.dropout(both)).relu(), mask


class Visual(nn.Module):
    """Visual part of a position's embedding: `norm(project(x))`, or `scale * project(x)`.

    Args:
        norm: True for a LayerNorm, False for one learned scale.
        scale: initial value of that scale, or of the LayerNorm's weight.
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
    """`dropout(norm(word + visual + position + segment))` for the text and for `[regions | END]`.

    Positions of the text are counted over its real tokens. All regions of a row share the next position, and
    END has the one after it.

    Args:
        first_position: row of the position table for the first token; 2 in RoBERTa's tables.
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
        # The original's END token has no word:
        # its embedding takes the place of word and visual part together.
        self.end = nn.Parameter(torch.zeros(dim))
        self.text_visual, self.region_visual = (
            Visual(visual_dim, dim, norm=visual_norm, scale=visual_scale, eps=eps) for _ in range(2)
        )
        self.norm, self.dropout = nn.LayerNorm(dim, eps=eps), nn.Dropout(dropout)

    def forward(
        self,
        text: PaddedText,
        visual: Float[Tensor, "B #T V"],
        *,
        regions: Float[Tensor, "B S V"],
        words: Float[Tensor, "*#BS D"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B Q D"]]:
        """Return the embedded text, and the embedded regions followed by END.

        Args:
            visual: visual input of each token, or one for all tokens of a row.
            regions: visual input of each region.
            words: word embedding of each region, or one for all regions.
        """
        rows, length = text.ids.shape
        last = length + 1 + self.first_position  # position of END in a row without padding
        # Checked before the look-up, which fails on a GPU without saying what was wrong.
        if last >= self.positions.num_embeddings:
            raise ConfigError(
                f"a text of {length} tokens needs {last + 1} positions with its regions and END; the model "
                f"has {self.positions.num_embeddings}. Lower processor.max_tokens."
            )
        tokens = self.words(text.ids) + self.text_visual(visual)
        others = torch.cat([words + self.region_visual(regions), self.end.expand(rows, 1, -1)], 1)
        # Regions have no order, so all get the first position after the text of their row.
        count = text.mask.sum(1, keepdim=True)
        places = torch.cat([count.expand(-1, regions.shape[1]), count + 1], 1)
        return (
            # The clamp keeps the index valid for a row without tokens.
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

    The visual part of a token is the region that it names (`PaddedText.mentions`), else the whole image. In a
    row without regions it is the blank vector. `Inputs.regions` is None if no row of the batch has regions.

    Args:
        box_dim: width of the sines and cosines of a box, a multiple of 8.
        visual_dim: width of an embedded region; None means `dim`.
        visual_norm: apply a LayerNorm to the visual part of a position. False multiplies by a learned scale.
        visual_scale: initial value of that LayerNorm's weight or of the scale. With 0, as published, training
            starts from BERT's own states.
        first_position: row of the position table for the first token; 2 in RoBERTa's tables.
        readout: `first` pools the first token. `before_end` takes the state of the second-to-last token, as
            the original does for questions, which end in `[MASK] [SEP]`.
        whole_image: put a region for the whole image before the others. False means that the first region of
            every row already is that region.
        hide_features: replace the features of regions that pre-training hides by a learned vector. False
            keeps them, as the original does in end-to-end training, where the pixels are blanked instead.
        learned_blank: learn the blank vector. False fixes it at zero, as in MM-BERT's training on text pairs
            and translation.
        blind: ignore what regions show: they keep their positions but are embedded as zeros, and the text has
            the blank vector. Reproduces MM-BERT's retrieval and word translation without vision.
        text_only: read text alone, for runs without a feature store. The visual part of every token is zero,
            as in MM-BERT's training on text pairs. The parameters stay, so weights move both ways.
        std: standard deviation of the initial weights.

    Raises:
        ConfigError: `readout` is unknown, or `box_dim` is not a multiple of 8.
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
        text_only: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if text_only:
            self.needs = frozenset({"text"})
        if readout not in ("first", "before_end"):
            raise ConfigError(f"model.readout is {readout!r}; expected 'first' or 'before_end'.")
        self.dim = self.text_dim = self.region_dim = dim
        self.std, self.text_only = std, text_only
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
        self.hidden_word = nn.Parameter(torch.zeros(dim))  # replaces it at regions that pre-training hides
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
            if part.norm is not None:  # init_bert() has reset it to 1
                nn.init.constant_(part.norm.weight, visual_scale)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        text, regions = require(self, "text", inputs.text), inputs.regions
        if regions is None:
            # Zero regions of the right width: what follows needs no second path for texts alone.
            embedded, mask = self.region_word.new_zeros(len(text.ids), 0, self.visual_dim), text.mask[:, :0]
        else:
            require_width(self, regions, feature_dim=self.feature_dim)
            embedded, mask = self.regions(regions)
        words = self._region_words(regions)
        if self.blind:
            embedded, words = torch.zeros_like(embedded), torch.zeros_like(words)
        parts = self.embedding(text, self._text_visual(text, embedded, mask), regions=embedded, words=words)
        masks = text.mask, functional.pad(mask, (0, 1), value=True)  # END is real in every row
        if self.pool is None and "pooled" in reads:
            reads |= {"text"}  # `before_end` needs more than the first state
        pool = self.pool or partial(before_end, mask=text.mask)
        encoding = encode_jointly(self.encoder, parts, masks=masks, pool=pool, reads=reads)
        states = None if regions is None else encoding.regions
        if states is not None:  # without the whole image and END, which the model added itself
            states = states[:, int(self.regions.whole_image) : -1]
        return Encoding(pooled=encoding.pooled, text=encoding.text, regions=states)

    def _region_words(self, regions: PaddedRegions | None) -> Float[Tensor, "*#BS D"]:
        if regions is None or regions.hidden is None:
            return self.region_word
        hidden = functional.pad(regions.hidden, (int(self.regions.whole_image), 0))  # it is never hidden
        return torch.where(hidden[..., None], self.hidden_word, self.region_word)

    def _text_visual(
        self, text: PaddedText, embedded: Float[Tensor, "B S V"], mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B #T V"]:
        rows, count, width = embedded.shape
        blank = embedded.new_zeros(width) if self.blank is None or self.text_only else self.blank
        # One vector per row suffices, as all tokens show the same nothing.
        if self.blind or not count:
            return blank.expand(rows, 1, -1)
        if text.mentions is None:
            named = embedded[:, :1]
        else:
            # A mention of -1 (none) must become row 0, the whole image; adding it shifted the others by one.
            index = text.mentions + 1 if self.regions.whole_image else text.mentions.clamp(min=0)
            named = embedded.gather(1, index[..., None].expand(-1, -1, width))
        # A row without regions in a batch that has some: its "whole image" is padding.
        return torch.where(mask.any(1)[:, None, None], named, blank)

    def attention_places(self) -> AttentionPlaces:
        return AttentionPlaces(
            before_regions=("whole image",) if self.regions.whole_image else (),
            after_regions=("[END]",),
            pooled="before_end" if self.pool is None else "first",
        )

    def word_embedding(self) -> nn.Embedding:
        return self.embedding.words


def vlbert_base(**overrides: Any) -> VlBert:
    """12 layers, width 768: 113 M parameters."""
    return VlBert(**overrides)


def vlbert_large(**overrides: Any) -> VlBert:
    """24 layers, width 1024: 339 M parameters."""
    return VlBert(**{"dim": 1024, "heads": 16, "hidden": 4096, "layers": 24, **overrides})


def mmbert_base(**overrides: Any) -> VlBert:
    """`vlbert_base` with the 119,547 tokens of BERT's multilingual cased vocabulary: 181 M parameters."""
    return vlbert_base(**{"vocab_size": 119547, **overrides})


def vlbert_tiny(**overrides: Any) -> VlBert:
    """2 layers, width 48, no dropout: learns from scratch in a minute on a CPU.

    Large initial weights for the reason given in `uniter_tiny`. `visual_scale` is above 0 so that regions
    count from the first step. If they count as much as the words, the model memorizes the training pictures.
    """
    sizes = {"vocab_size": 1000, "feature_dim": 64, "box_dim": 256, "dim": 48, "heads": 4, "hidden": 192}
    learning = {"dropout": 0.0, "attention_dropout": 0.0, "visual_scale": 0.2, "std": 0.2}
    return VlBert(**{**sizes, "layers": 2, **learning, **overrides})
