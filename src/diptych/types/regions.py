"""Regions that a detector found in an image, and the description of a set of region features."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from diptych.boxes import other_convention
from diptych.errors import ConfigError, FormatError


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """Regions of one image, in descending order of confidence.

    Args:
        features: one row per region; float16 or float32.
        boxes: absolute pixels of the original image.
        size: width and height of the original image in pixels.
        labels: index of the object class.
        scores: confidence of the object class in [0, 1].
        attributes: index of the attribute.
        attribute_scores: confidence of the attribute in [0, 1].
        probabilities: probabilities of all detector classes.
        silhouettes: share of each cell of a box that the object covers, in [0, 1]; stores do not hold them.
    """

    features: Float[ndarray, "R F"]
    boxes: Float[ndarray, "R 4"]
    size: tuple[int, int]
    labels: Int[ndarray, " R"] | None = None
    scores: Float[ndarray, " R"] | None = None
    attributes: Int[ndarray, " R"] | None = None
    attribute_scores: Float[ndarray, " R"] | None = None
    probabilities: Float[ndarray, "R K"] | None = None
    silhouettes: Float[ndarray, "R s s"] | None = None

    def __post_init__(self) -> None:
        # Shapes are checked at once; values only by `verify`, because regions are built at every access.
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.features.ndim != 2:
            raise FormatError(
                f"regions have boxes of shape {self.boxes.shape} and features of shape "
                f"{self.features.shape}; expected (R, 4) and (R, F)."
            )
        for name in ("features", *OPTIONAL_REGION_FIELDS, "silhouettes"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise FormatError(
                    f"regions have {count} boxes but {len(value)} {name}; expected one of each."
                )

    def __len__(self) -> int:
        return len(self.boxes)

    def verify(self) -> None:
        """Check all values, which takes time: numbers are finite, boxes are ordered and inside the image.

        Raises:
            FormatError: names the first invalid region. A box may exceed the image by one pixel.
        """
        width, height = self.size
        if width < 1 or height < 1:
            raise FormatError(f"the image size is {width} x {height}; expected at least 1 x 1 pixels.")
        # No comparison below is true of NaN, so it is looked for first.
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
        # One pixel of tolerance: detectors round and clip differently.
        outside = (x1 < -1) | (y1 < -1) | (x2 > width + 1) | (y2 > height + 1)
        if (bad := np.flatnonzero(outside)).size:
            box = _numbers(self.boxes[bad[0]])
            raise FormatError(
                f"box {bad[0]} leaves the image: {box}; expected it within {width} x {height}."
                f"{other_convention(self.boxes, self.size)}"
            )

    def first(self, count: int) -> "Regions":
        """The best `count` regions."""
        # The usual case: no copy of the fields.
        if len(self) <= count:
            return self
        names = ("features", "boxes", *OPTIONAL_REGION_FIELDS, "silhouettes")
        # Slices are views, so nothing is copied.
        rows = {name: getattr(self, name) for name in names}
        return replace(self, **{name: value[:count] for name, value in rows.items() if value is not None})

    def take(self, rows: Int[ndarray, " K"]) -> "Regions":
        """The regions with these numbers."""
        own = {name: getattr(self, name) for name in ("features", "boxes", *OPTIONAL_REGION_FIELDS)}
        return replace(self, **{name: value[rows] for name, value in own.items() if value is not None})


OPTIONAL_REGION_FIELDS = ("labels", "scores", "attributes", "attribute_scores", "probabilities")


def _numbers(row: ndarray) -> str:
    return " ".join(f"{value:.1f}" for value in row)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMeta:
    """Origin of region features. Stores keep it, and a trained model keeps that of its training data.

    Args:
        feature_dim: width F of one feature.
        detector: name of the detector, for example `vgattr` or `world`.
        box_rule: number of boxes per image, for example `36`, or `10:100` for a range.
        classes: names of object classes; empty if unknown.
        attributes: names of attributes; empty if unknown.
        dtype: `float16` or `float32`.
        count: number of images.
        checksum: SHA-256 over keys and arrays in order; different for stores with different contents.
        parts: of a store of embeddings, the name and width of each part of a feature, such as `pooled:512`.
    """

    feature_dim: int
    detector: str = "unknown"
    box_rule: str = "unknown"
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    dtype: str = "float32"
    count: int = 0
    checksum: str = ""
    parts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        values = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        # Stores of regions keep the bytes, and their predictions the checksums, that they always had.
        return values if self.parts else {name: one for name, one in values.items() if name != "parts"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeatureMeta":
        # JSON has lists for tuples.
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def require_like(self, other: "FeatureMeta", *, where: object) -> None:
        """Check that features described by `self` can replace those described by `other`.

        Width, detector and class names must agree; box rule, number type and images may differ. A detector
        `unknown` and empty class names agree with everything.

        Args:
            where: name of the feature source for the message.

        Raises:
            ConfigError: names the difference and both values.
        """
        if (self.parts or other.parts) and (self.parts, self.detector) != (other.parts, other.detector):
            raise ConfigError(
                f"{where}: holds {_of(self)}; the model was trained on {_of(other)}. Vectors of different "
                "models are not comparable."
            )
        if self.feature_dim != other.feature_dim:
            raise ConfigError(
                f"{where}: features are {self.feature_dim} wide; the model takes {other.feature_dim}."
            )
        # Equal widths say nothing: features of two detectors have 2048
        # numbers each and mean different things.
        if "unknown" not in (self.detector, other.detector) and self.detector != other.detector:
            raise ConfigError(
                f"{where}: features come from detector {self.detector!r}; the model was trained on "
                f"{other.detector!r}. Features of different detectors are not comparable; use features of "
                "the same detector."
            )
        # Models with object tags read the names, so equal numbers must mean equal classes.
        if self.classes and other.classes and self.classes != other.classes:
            raise ConfigError(
                f"{where}: the detector's class names differ from those the model was trained with."
            )


def _of(meta: FeatureMeta) -> str:
    parts = ", ".join(meta.parts)
    return f"embeddings of {meta.detector!r} ({parts})" if parts else f"regions of {meta.detector!r}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
