"""Co-attention between a text and a vision stream: ViLBERT and its descendants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.attention import ALL, FIRST, NOTHING, Attention, Side
from diptych.nn.boxes import corners_area
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import FeedForward, Layer, run_layers
from diptych.types import EVERYTHING, PaddedRegions

# Of the maps of a `CoEncoder`, for `AttentionPlaces`.
SIDES: dict[str, tuple[Side, Side]] = {
    "*text_layers.*": ("text", "text"),
    "*vision_layers.*": ("regions", "regions"),
    "*text_attention": ("text", "regions"),
    "*vision_attention": ("regions", "text"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of one stream, or of the co-attention between two (the bridge).

    Args:
        dim: width of the states.
        heads: number of attention heads.
        hidden: width inside the feed-forward network; not used for the bridge.
        layers: number of layers; not used for the bridge.
    """

    dim: int
    heads: int
    hidden: int = 0
    layers: int = 0


class CoLayer(nn.Module):
    """Each stream attends to the other, then passes its own feed-forward network.

    Both attentions read the incoming states, so the order of the two streams does not matter.

    Args:
        bridge: width and heads of both attentions.
    """

    def __init__(
        self,
        text: Sizes,
        vision: Sizes,
        *,
        bridge: Sizes,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()

        def attention(own: Sizes, other: Sizes) -> Attention:
            return Attention(
                own.dim,
                bridge.heads,
                context_dim=other.dim,
                inner_dim=bridge.dim,
                dropout=dropout,
                attention_dropout=attention_dropout,
                eps=eps,
            )

        self.text_attention, self.vision_attention = attention(text, vision), attention(vision, text)
        self.text_feedforward = FeedForward(text.dim, text.hidden, dropout=dropout, eps=eps)
        self.vision_feedforward = FeedForward(vision.dim, vision.hidden, dropout=dropout, eps=eps)

    def forward(
        self,
        text: Float[Tensor, "B T Dt"],
        text_mask: Bool[Tensor, "B T"],
        vision: Float[Tensor, "B R Dv"],
        vision_mask: Bool[Tensor, "B R"],
        *,
        keep_text: slice = ALL,
        keep_vision: slice = ALL,
    ) -> tuple[Float[Tensor, "B S Dt"], Float[Tensor, "B Q Dv"]]:
        """Return new states of both streams, at the positions to keep."""
        # Empty states of the right width, for a stream that nobody reads.
        words, areas = text[:, NOTHING], vision[:, NOTHING]
        if keep_text != NOTHING:
            words = self.text_feedforward(self.text_attention(text, vision_mask, vision, keep=keep_text))
        if keep_vision != NOTHING:
            areas = self.vision_feedforward(self.vision_attention(vision, text_mask, text, keep=keep_vision))
        return words, areas


class CoEncoder(nn.Module):
    """Two stacks of layers, joined by co-attention layers.

    Args:
        bridge: width and heads of the co-attention.
        meetings: for each co-attention layer, the numbers of text and of vision layers before it.
    """

    def __init__(
        self,
        text: Sizes,
        vision: Sizes,
        *,
        bridge: Sizes,
        meetings: Sequence[Sequence[int]],
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        rates = {"dropout": dropout, "attention_dropout": attention_dropout, "eps": eps}
        ends = [(0, 0), *((before, seen) for before, seen in meetings), (text.layers, vision.layers)]
        # One list of layer numbers per stream, framed by 0 and the number of layers: sorted means valid.
        if any(stream != sorted(stream) for stream in map(list, zip(*ends, strict=True))):
            raise ConfigError(
                f"meetings are {[*map(tuple, meetings)]}; expected pairs of layer numbers that never "
                f"decrease, up to {text.layers} in the text and {vision.layers} in the vision stream."
            )
        # Example of vilbert_base: (6, 0) means that six text layers and no
        # vision layer run before the first meeting.
        self.ends = tuple(ends[1:])
        self.text_layers = nn.ModuleList(
            Layer(text.dim, text.heads, hidden=text.hidden, **rates) for _ in range(text.layers)
        )
        self.vision_layers = nn.ModuleList(
            Layer(vision.dim, vision.heads, hidden=vision.hidden, **rates) for _ in range(vision.layers)
        )
        self.meetings = nn.ModuleList(CoLayer(text, vision, bridge=bridge, **rates) for _ in meetings)

    def forward(
        self,
        text: Float[Tensor, "texts T Dt"],
        text_mask: Bool[Tensor, "texts T"],
        vision: Float[Tensor, "B R Dv"],
        vision_mask: Bool[Tensor, "B R"],
        reads: frozenset[str] = EVERYTHING,
        *,
        spread: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Float[Tensor, "B S Dt"], Float[Tensor, "B Q Dv"]]:
        """Return the states of both streams that `reads` asks for; `pooled` needs the first of each.

        Args:
            spread: repeats texts that rows share (`PaddedText.spread`); None if every row has its own.
        """
        keep_text, keep_vision = (
            ALL if part in reads else FIRST if "pooled" in reads else NOTHING for part in ("text", "regions")
        )
        # Numbers of (text, vision) layers before the last meeting and in all; no meeting counts as (0, 0).
        *_, met, end = (0, 0), *self.ends
        # Layers of its own after the last meeting attend to the whole stream, so the meeting may drop none of
        # its positions, unless the stream is not read at all.
        keeps = {
            "keep_text": keep_text if keep_text == NOTHING or met[0] == end[0] else ALL,
            "keep_vision": keep_vision if keep_vision == NOTHING or met[1] == end[1] else ALL,
        }
        text_layers, vision_layers = [*self.text_layers], [*self.vision_layers]
        # The text layers before the first meeting do not see the regions, so rows may share their result.
        text_done, vision_done = self.ends[0][0] if len(self.meetings) else 0, 0
        text = run_layers(text_layers[:text_done], text, text_mask)
        if spread is not None:
            text, text_mask = spread(text), spread(text_mask)
        for number, meeting in enumerate(self.meetings, 1):
            text_end, vision_end = self.ends[number - 1]
            text = run_layers(text_layers[text_done:text_end], text, text_mask)
            vision = run_layers(vision_layers[vision_done:vision_end], vision, vision_mask)
            last = keeps if number == len(self.meetings) else {}
            text, vision = meeting(text, text_mask, vision, vision_mask, **last)
            text_done, vision_done = text_end, vision_end
        text = run_layers(text_layers[text_done:], text, text_mask, keep_text)
        return text, run_layers(vision_layers[vision_done:], vision, vision_mask, keep_vision)


class BoxedRegions(nn.Module):
    """`dropout(norm(feature + box))`, with boxes as `x1 y1 x2 y2 area`.

    The features of regions that pre-training hides are zeros.

    Args:
        box_area: whether a box includes its area; Vilio's do not.
        whole_image: put a region before the others whose feature is the mean (`PaddedRegions.mean`) and whose
            box is the whole image.
    """

    def __init__(
        self,
        feature_dim: int,
        dim: int,
        *,
        box_area: bool = True,
        whole_image: bool = True,
        dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        require_sizes(feature_dim=feature_dim, dim=dim)
        self.box_area, self.whole_image = box_area, whole_image
        self.feature, self.box = nn.Linear(feature_dim, dim), nn.Linear(5 if box_area else 4, dim)
        self.norm, self.dropout = nn.LayerNorm(dim, eps=eps), nn.Dropout(dropout)

    def forward(self, regions: PaddedRegions) -> tuple[Float[Tensor, "B S D"], Bool[Tensor, "B S"]]:
        """Return embedded regions and their mask; S is R, or R + 1 with the whole image."""
        features, boxes, mask = regions.features, regions.boxes, regions.mask
        if regions.hidden is not None:
            # Before the mean, so that the whole-image region does not show what is hidden.
            features = features.masked_fill(regions.hidden[..., None], 0)
        if self.whole_image:
            mean = regions.mean(features)
            whole = boxes.new_tensor([0, 0, 1, 1]).expand(len(boxes), 1, 4)
            features, boxes = torch.cat([mean[:, None], features], 1), torch.cat([whole, boxes], 1)
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], 1)  # real even in a row without regions
        box = self.box(corners_area(boxes) if self.box_area else boxes)
        return self.dropout(self.norm(self.feature(features) + box)), mask


class FusedPool(nn.Module):
    """Product or sum of `relu(text(first token))` and `relu(vision(first region))`."""

    def __init__(self, text_dim: int, vision_dim: int, dim: int, *, fusion: str = "product") -> None:
        super().__init__()
        if fusion not in ("product", "sum"):
            raise ConfigError(f"fusion is {fusion!r}; expected 'product' or 'sum'.")
        self.text, self.vision = nn.Linear(text_dim, dim), nn.Linear(vision_dim, dim)
        self.fusion = fusion

    def forward(self, text: Float[Tensor, "B T Dt"], vision: Float[Tensor, "B R Dv"]) -> Float[Tensor, "B D"]:
        if not vision.shape[1]:
            raise ConfigError("the batch has no region; without whole_image every row needs at least one.")
        # Not tanh: all models of this family were trained with ReLU poolers.
        text_vector: Tensor = self.text(text[:, 0]).relu()
        vision_vector: Tensor = self.vision(vision[:, 0]).relu()
        return text_vector * vision_vector if self.fusion == "product" else text_vector + vision_vector
