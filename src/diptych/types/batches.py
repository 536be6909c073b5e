"""Tensors on their way through a model: inputs, batches, encodings, outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils import _pytree as pytree

from diptych.errors import ConfigError
from diptych.tree import Tree
from diptych.tree import tree as _tree

Targets = Tensor | Mapping[str, Tensor]


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedText(Tree):
    """Token ids; `segments` tells first from second text; `mentions` is the named region or -1."""

    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    segments: Int[Tensor, "B T"]
    mentions: Int[Tensor, "B T"] | None = None


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedRegions(Tree):
    """Regions of each row.

    Args:
        boxes: normalized to [0, 1] by the width and height of the image.
        image_index: which image of the row a region belongs to; 0 unless a row holds several.
        silhouettes: the part of its box that an object covers, in [0, 1].
        sizes: width and height in pixels of the first image.
        resized: the same of what `Inputs.pixels` shows of it, or of the picture in which boxes were clipped;
            None where it is not resized.
        hidden: regions that pre-training hides.
        beyond: sum of the features that `processor.max_regions` cut off, and how many these were in
            `beyond_count`; None where nothing was.
        labels: and what follows: what the detector said, as in `Regions`; -1 where it said nothing.
    """

    features: Float[Tensor, "B R F"]
    boxes: Float[Tensor, "B R 4"]
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

    def mean(self, features: Float[Tensor, "B R F"]) -> Float[Tensor, "B F"]:
        """Features of the whole image: the mean over all its regions but the hidden ones.

        As in the readers of ERNIE-ViL, ViLBERT and VL-BERT, regions that were cut off count.
        """
        shown = self.mask if self.hidden is None else self.mask & ~self.hidden
        total, count = features.masked_fill(~shown[..., None], 0).sum(1), shown.sum(1, keepdim=True)
        if self.beyond is not None and self.beyond_count is not None:
            total, count = total + self.beyond, count + self.beyond_count[:, None]
        return total / count.clamp(min=1)


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs(Tree):
    """What a model sees; an absent modality is None."""

    text: PaddedText | None = None
    regions: PaddedRegions | None = None
    pixels: Float[Tensor, "B 3 h w"] | None = None
    vectors: Float[Tensor, "B E"] | None = None

    def __len__(self) -> int:
        return len(next(leaf for leaf in pytree.tree_leaves(self) if isinstance(leaf, Tensor)))


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Tree):
    """What a task sees: N examples of `pairs` rows each.

    Args:
        targets: one tensor, or several by name, as the task's `TargetEncoder` makes them.
        weights: factor of each example's loss; None where all are 1.
    """

    ids: tuple[str, ...]
    inputs: Inputs
    targets: Targets | None = None
    pairs: int = 1
    weights: Float[Tensor, " N"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def target(self, name: str | None = None) -> Shaped[Tensor, "N ..."]:
        """The one target tensor, or that of a name.

        Raises:
            ConfigError: there is none.
        """
        found = self.targets.get(name or "") if isinstance(self.targets, Mapping) else self.targets
        if found is None or isinstance(self.targets, Mapping) is (name is None):
            raise ConfigError(
                f"a batch has the targets {self.targets!r:.80}; expected {name or 'one tensor'}."
            )
        return found

    def group(self, rows: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N P ..."]:
        """Fold rows back into examples."""
        return rows.reshape(-1, self.pairs, *rows.shape[1:])


EVERYTHING = frozenset(
    {"pooled", "text", "regions", "joint_image", "joint_text"}
)  # that an encoding can hold


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding(Tree):
    """What a model returns: the joint vector, and the states of tokens and regions where it has them.

    What nobody reads may be None.

    Args:
        joint_image: of a dual encoder, the vector of the image in the space that both modalities share;
            `joint_text` that of the text.
    """

    pooled: Float[Tensor, "B D"] | None = None
    text: Float[Tensor, "B T Dt"] | None = None
    regions: Float[Tensor, "B R Dv"] | None = None
    joint_image: Float[Tensor, "B J"] | None = None
    joint_text: Float[Tensor, "B J"] | None = None


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Tree):
    """What a task returns. `loss` is None when the batch has no targets; pre-training has no logits."""

    loss: Float[Tensor, ""] | None
    logits: Shaped[Tensor, "N ..."] | None = None
    logs: dict[str, Tensor] = field(default_factory=dict)
