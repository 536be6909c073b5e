"""Tensors of a forward pass: inputs, batches, encodings, outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils import _pytree as pytree

from diptych.errors import ConfigError
from diptych.tree import Tree, register_tree

Targets = Tensor | Mapping[str, Tensor]
AnyShared = TypeVar("AnyShared", bound="Shared")  # typing.Self does not survive the shape-checking hook


class Shared(Tree):
    """Mixin of texts and regions that several rows of a batch may share: each is there once.

    `shared` is the number of the text, or of the image, of each row of the batch; None means that every row
    has its own.
    """

    __slots__ = ()
    shared: Any  # a tensor or None; the fields of the subclasses say it

    def spread(self, states: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "rows ..."]:
        """Repeat what was computed for each text or image for every row that has it."""
        # Example: shared [0, 0, 1], three questions about two images, gives the rows 0, 0 and 1.
        return states if self.shared is None else states[self.shared]

    def unshared(self: AnyShared) -> AnyShared:
        """The same with a copy for every row, for models that do not share."""
        if self.shared is None:
            return self
        index = self.shared
        alone: AnyShared = replace(self, shared=None)  # type: ignore[type-var]
        return alone.map(lambda tensor: tensor[index])


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedText(Shared):
    """Token ids of each row.

    Args:
        segments: 0 for tokens of the first text, 1 for the second.
        mentions: number of the region that a token names, or -1.
        shared: number of the text of each row, if rows share texts; only for models with `shares_text`.
    """

    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    segments: Int[Tensor, "B T"]
    # None where no text of the batch names a region, which is usual.
    mentions: Int[Tensor, "B T"] | None = None
    shared: Int[Tensor, " rows"] | None = None


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedRegions(Shared):
    """Regions of each row.

    Args:
        boxes: normalized to [0, 1] by the width and height of the image.
        image_index: index of the image that a region belongs to; 0 unless a row has several images.
        silhouettes: share of each cell of a box that the object covers, in [0, 1].
        sizes: width and height of the first image in pixels.
        resized: width and height of the image after resizing: as it is in `Inputs.pixels`, or as it was when
            boxes were clipped. None if it was not resized.
        hidden: mask of the regions that pre-training hides.
        beyond: sum of the features that `processor.max_regions` cut off; None if it cut off none.
        beyond_count: number of features in `beyond`.
        labels: this and the following fields are detector outputs as in `Regions`; labels are -1 if unknown.
        shared: where several rows of the batch show one image, the regions of each image are here once, and
            this is the number of the image of each row; only for models with `shares_regions`.
    """

    # Width 0 for end-to-end models, which compute features from pixels.
    features: Float[Tensor, "B R F"]
    boxes: Float[Tensor, "B R 4"]
    # What padding holds is not defined and must not be read.
    mask: Bool[Tensor, "B R"]
    image_index: Int[Tensor, "B R"]
    silhouettes: Float[Tensor, "B R s s"] | None = None
    sizes: Float[Tensor, "B 2"]
    resized: Float[Tensor, "B 2"] | None = None
    hidden: Bool[Tensor, "B R"] | None = None
    beyond: Float[Tensor, "B F"] | None = None
    beyond_count: Int[Tensor, " B"] | None = None
    labels: Int[Tensor, "B R"] | None = None
    scores: Float[Tensor, "B R"] | None = None
    attributes: Int[Tensor, "B R"] | None = None
    attribute_scores: Float[Tensor, "B R"] | None = None
    probabilities: Float[Tensor, "B R K"] | None = None
    shared: Int[Tensor, " rows"] | None = None

    def mean(self, features: Float[Tensor, "B R F"]) -> Float[Tensor, "B F"]:
        """Mean feature of each image, without hidden regions.

        Regions beyond `processor.max_regions` count, as in the loaders of ERNIE-ViL, ViLBERT and VL-BERT.
        """
        # A hidden region must not show through the mean.
        shown = self.mask if self.hidden is None else self.mask & ~self.hidden
        # `masked_fill` and no product: padding may hold NaN, and 0 * NaN is NaN.
        total, count = features.masked_fill(~shown[..., None], 0).sum(1), shown.sum(1, keepdim=True)
        if self.beyond is not None and self.beyond_count is not None:
            # Never hidden: pre-training hides only regions that the model sees.
            total, count = total + self.beyond, count + self.beyond_count[:, None]
        return total / count.clamp(min=1)  # zeros for a row without regions


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs(Tree):
    """Inputs of a model; an absent modality is None.

    Args:
        more_texts: further texts of each row, as in `Pair.more_texts`.
    """

    text: PaddedText | None = None
    more_texts: tuple[PaddedText, ...] = ()
    regions: PaddedRegions | None = None
    # Padded with zeros to the largest picture of the batch.
    pixels: Float[Tensor, "B 3 h w"] | None = None
    vectors: Float[Tensor, "B E"] | None = None

    def __len__(self) -> int:
        # Every tensor has one entry per row.
        return len(next(leaf for leaf in pytree.tree_leaves(self) if isinstance(leaf, Tensor)))


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Tree):
    """Inputs of a task: N examples of `pairs` rows each.

    Args:
        targets: one tensor or several named ones, as the task's `TargetEncoder` makes them.
        weights: factor of each example's loss; None means 1 for all.
        groups: group of each example; None where none has one.
    """

    ids: tuple[str, ...]
    inputs: Inputs
    targets: Targets | None = None
    # Rows of an example lie one behind the other, so a reshape groups them.
    pairs: int = 1
    weights: Float[Tensor, " N"] | None = None
    groups: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def target(self, name: str | None = None) -> Shaped[Tensor, "N ..."]:
        """Return the only target tensor, or the one with the given name.

        Raises:
            ConfigError: the batch has no such target.
        """
        target = self.targets.get(name or "") if isinstance(self.targets, Mapping) else self.targets
        # A name must be given for named targets, and only for these.
        if target is None or isinstance(self.targets, Mapping) is (name is None):
            raise ConfigError(
                f"a batch has the targets {self.targets!r:.80}; expected {name or 'one tensor'}."
            )
        return target

    def group(self, rows: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N P ..."]:
        """Reshape rows into examples of pairs."""
        return rows.reshape(-1, self.pairs, *rows.shape[1:])


# All fields of `Encoding`.
EVERYTHING = frozenset(
    {"pooled", "text", "regions", "joint_image", "joint_text", "tower_image", "tower_text"}
)


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding(Tree):
    """Output of a model: one vector per row, and the states of tokens and regions.

    Fields not requested through `reads`, and fields that the model does not provide, may be None.

    Args:
        pooled: vector of the whole row.
        joint_image: vector of the image in the space shared by both modalities (dual encoders only).
        joint_text: vector of the text in that space.
        tower_image: vector of the image before it is projected to that space.
        tower_text: vector of the text before it is projected to that space.
    """

    pooled: Float[Tensor, "B D"] | None = None
    text: Float[Tensor, "B T Dt"] | None = None
    regions: Float[Tensor, "B R Dv"] | None = None
    joint_image: Float[Tensor, "B J"] | None = None
    joint_text: Float[Tensor, "B J"] | None = None
    tower_image: Float[Tensor, "B Vi"] | None = None
    tower_text: Float[Tensor, "B Vt"] | None = None


@register_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Tree):
    """Output of a task. `loss` is None if the batch has no targets; pre-training has no logits."""

    # A mean over examples: the loop weighs batches of different sizes.
    loss: Float[Tensor, ""] | None
    logits: Shaped[Tensor, "N ..."] | None = None
    # For people; no gradient flows through them.
    logs: dict[str, Tensor] = field(default_factory=dict)
