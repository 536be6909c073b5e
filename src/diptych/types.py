"""The words everyone speaks: what flows from disk to a submission file, one type per station.

Letters used in all shapes: N examples, P pairs per example, B = N * P rows, T text tokens, R regions,
F region-feature width, D model width (Dt text, Dv region), C classes, K detector classes, E sentence-vector
width. Masks are bool and True means real. Boxes are x1 y1 x2 y2. Sizes are (width, height).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from diptych.boxes import other_convention
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions
from diptych.tree import Tree
from diptych.tree import tree as _tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """What a detector found in one image, best first.

    Args:
        features: one row per region; float16 or float32.
        boxes: absolute pixels of the original image.
        size: width and height of the original image in pixels.
        labels: index of the object class.
        scores: confidence of the object class in [0, 1].
        attributes: index of the attribute; `attribute_scores` its confidence.
        probabilities: soft object classes.
    """

    features: Float[ndarray, "R F"]
    boxes: Float[ndarray, "R 4"]
    size: tuple[int, int]
    labels: Int[ndarray, " R"] | None = None
    scores: Float[ndarray, " R"] | None = None
    attributes: Int[ndarray, " R"] | None = None
    attribute_scores: Float[ndarray, " R"] | None = None
    probabilities: Float[ndarray, "R K"] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.features.ndim != 2:
            raise FormatError(
                f"regions have boxes of shape {self.boxes.shape} and features of shape "
                f"{self.features.shape}; expected (R, 4) and (R, F)."
            )
        for name in ("features", *OPTIONAL_REGION_FIELDS):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise FormatError(
                    f"regions have {count} boxes but {len(value)} {name}; expected one of each."
                )

    def __len__(self) -> int:
        return len(self.boxes)

    def verify(self) -> None:
        """Look at every number, which costs time: finite everywhere, boxes ordered and inside the image.

        Raises:
            FormatError: names the first region that is wrong. A box may leave the image by one pixel.
        """
        width, height = self.size
        if width < 1 or height < 1:
            raise FormatError(f"the image size is {width} x {height}; expected at least 1 x 1 pixels.")
        for name in ("features", "boxes", "scores", "attribute_scores", "probabilities"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                row = int(np.argwhere(~np.isfinite(value))[0][0])
                raise FormatError(f"region {row} has NaN or infinite {name}; expected finite numbers.")
        x1, y1, x2, y2 = self.boxes.T
        if (bad := np.flatnonzero((x2 < x1) | (y2 < y1))).size:
            box = _numbers(self.boxes[bad[0]])
            raise FormatError(
                f"box {bad[0]} is inverted: {box}; expected x1 <= x2 and y1 <= y2."
                f"{other_convention(self.boxes, self.size)}"
            )
        outside = (x1 < -1) | (y1 < -1) | (x2 > width + 1) | (y2 > height + 1)
        if (bad := np.flatnonzero(outside)).size:
            box = _numbers(self.boxes[bad[0]])
            raise FormatError(
                f"box {bad[0]} leaves the image: {box}; expected within {width} x {height}."
                f"{other_convention(self.boxes, self.size)}"
            )

    def first(self, count: int) -> "Regions":
        """The best `count` regions."""
        if len(self) <= count:
            return self
        rows = {name: getattr(self, name) for name in ("features", "boxes", *OPTIONAL_REGION_FIELDS)}
        return replace(self, **{name: value[:count] for name, value in rows.items() if value is not None})


OPTIONAL_REGION_FIELDS = ("labels", "scores", "attributes", "attribute_scores", "probabilities")


def _numbers(row: ndarray) -> str:
    return " ".join(f"{value:.1f}" for value in row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Characters `start` to `stop` of a text name region number `region` (VCR).

    Args:
        segment: 0 for `text`, 1 for `text_b` of the pair.
    """

    start: int
    stop: int
    region: int
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One image and one text.

    Args:
        image: key of the image; two keys put the regions of both images into one row; None means text only.
        text_b: second segment (an answer, object names, the other language).
        files: picture of each key, below the root of the data set; empty where keys alone tell.
    """

    image: str | tuple[str, ...] | None
    text: str
    text_b: str | None = None
    mentions: tuple[Mention, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One decision of a dataset.

    Args:
        weight: factor of its loss in training.
        group: a slice that measures are also reported for, such as a country.
        meta: JSON values for writers and reports; models never see them.
    """

    id: str
    pairs: tuple[Pair, ...]
    target: Any = None
    weight: float = 1.0
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


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
    """What a task sees: N examples of `pairs` rows each. The shape of `targets` is the task's business.

    Args:
        weights: factor of each example's loss; None where all are 1.
    """

    ids: tuple[str, ...]
    inputs: Inputs
    targets: Shaped[Tensor, "N ..."] | None = None
    pairs: int = 1
    weights: Float[Tensor, " N"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def group(self, rows: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N P ..."]:
        """Fold rows back into examples."""
        return rows.reshape(-1, self.pairs, *rows.shape[1:])


EVERYTHING = frozenset({"pooled", "text", "regions"})  # that an encoding can hold


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding(Tree):
    """What a model returns: the joint vector, and the states of tokens and regions where it has them.

    What nobody reads may be None.
    """

    pooled: Float[Tensor, "B D"] | None = None
    text: Float[Tensor, "B T Dt"] | None = None
    regions: Float[Tensor, "B R Dv"] | None = None


@_tree
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Tree):
    """What a task returns. `loss` is None when the batch has no targets; pre-training has no logits."""

    loss: Float[Tensor, ""] | None
    logits: Shaped[Tensor, "N ..."] | None = None
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMeta:
    """Where region features come from; a store carries it and a trained model remembers it.

    Args:
        feature_dim: width F of one region.
        detector: name of what produced the features, for example `vgattr` or `world`.
        box_rule: how many boxes an image has, for example `36` or `10:100`.
        classes: object class names, `attributes` attribute names; empty where unknown.
        dtype: `float16` or `float32`.
        count: number of images.
        checksum: SHA-256 over keys and arrays in order; tells two stores apart.
    """

    feature_dim: int
    detector: str = "unknown"
    box_rule: str = "unknown"
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    dtype: str = "float32"
    count: int = 0
    checksum: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeatureMeta":
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def require_like(self, other: "FeatureMeta", *, where: object) -> None:
        """Check that features described by `self` may stand in for those described by `other`.

        Width, detector and class names must agree; box rule, number type and images may differ. `unknown`
        detectors and empty class names agree with everything.

        Raises:
            ConfigError: names what differs and both values.
        """
        if self.feature_dim != other.feature_dim:
            raise ConfigError(
                f"{where}: features are {self.feature_dim} wide; the model takes {other.feature_dim}."
            )
        if "unknown" not in (self.detector, other.detector) and self.detector != other.detector:
            raise ConfigError(
                f"{where}: features come from detector {self.detector!r}; the model was trained on "
                f"{other.detector!r}. Their numbers do not mean the same; use features of the same detector."
            )
        if self.classes and other.classes and self.classes != other.classes:
            raise ConfigError(
                f"{where}: the detector's class names differ from those that the model was trained on."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Any `nn.Module` with these.

    The widths are those of `Encoding.pooled`, `.text` and `.regions`; 0 means not provided.
    `needs` is a subset of {"text", "regions", "pixels", "vectors", "mentions", "labels"}. `reads` names the
    fields of the encoding that somebody looks at; what only the others need is not computed.
    """

    dim: int
    text_dim: int
    region_dim: int
    needs: frozenset[str]

    def word_embedding(self) -> nn.Embedding | None: ...

    def __call__(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding: ...


@runtime_checkable
class Dataset(Protocol):
    """One split of one benchmark; also a torch map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the official submission file."""
        ...


@runtime_checkable
class RegionSource(Protocol):
    """Regions by image key: a feature store, or a live detector."""

    meta: FeatureMeta

    def __getitem__(self, key: str) -> Regions: ...

    def __contains__(self, key: str) -> bool: ...

    def count(self, key: str) -> int:
        """Number of regions, without reading them."""
        ...


@runtime_checkable
class TargetEncoder(Protocol):
    """Examples to the tensor of targets, None when any of them is unlabeled. Travels to loader workers."""

    def __call__(self, examples: Sequence[Example]) -> Tensor | None: ...
