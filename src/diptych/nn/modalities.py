"""Checks that a batch holds the inputs that a model reads."""

from typing import TypeVar

from torch import nn

from diptych.errors import ConfigError
from diptych.types import Inputs, PaddedRegions, PaddedText

Value = TypeVar("Value")


def require(reader: nn.Module, what: str, part: Value | None) -> Value:
    """Return `part` of the inputs, or fail if it is missing.

    Args:
        reader: module that needs the part.
        what: name of the part.

    Raises:
        ConfigError: `part` is None.
    """
    # At the model's door: further in, it would be an error about None in some layer.
    if part is None:
        raise ConfigError(
            f"{type(reader).__name__} reads {what}, but this batch has none. Let the processor provide "
            f"{what}, or use a model that does not need it."
        )
    return part


def require_both(reader: nn.Module, inputs: Inputs, *, feature_dim: int) -> tuple[PaddedText, PaddedRegions]:
    """Return the text and the regions of the inputs.

    Args:
        feature_dim: width of region features that `reader` takes.

    Raises:
        ConfigError: text or regions are missing, or the features have another width.
    """
    text, regions = require(reader, "text", inputs.text), require(reader, "regions", inputs.regions)
    require_width(reader, regions, feature_dim=feature_dim)
    return text, regions


def require_width(reader: nn.Module, regions: PaddedRegions, *, feature_dim: int) -> None:
    """Check the width of region features.

    Raises:
        ConfigError: the features have another width.
    """
    if (width := regions.features.shape[-1]) != feature_dim:
        raise ConfigError(
            f"{type(reader).__name__} takes region features of width {feature_dim}; those of this batch have "
            f"width {width}. Use features of the detector that it was trained with, or set model.feature_dim."
        )
