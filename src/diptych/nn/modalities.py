"""What a model reads must be in its batch."""

from typing import TypeVar

from torch import nn

from diptych.errors import ConfigError
from diptych.types import Inputs, PaddedRegions, PaddedText

Part = TypeVar("Part")


def require(reader: nn.Module, what: str, part: Part | None) -> Part:
    """`part` of the inputs, which `reader` cannot do without.

    Raises:
        ConfigError: the batch has none.
    """
    if part is None:
        raise ConfigError(
            f"{type(reader).__name__} reads {what}, and this batch has none. Let the processor provide "
            f"{what}, or take a model that does without."
        )
    return part


def require_both(reader: nn.Module, inputs: Inputs, *, feature_dim: int) -> tuple[PaddedText, PaddedRegions]:
    """Text and regions.

    Args:
        feature_dim: width of region features that `reader` takes.

    Raises:
        ConfigError: one of them is missing, or the features have another width.
    """
    text, regions = require(reader, "text", inputs.text), require(reader, "regions", inputs.regions)
    require_width(reader, regions, feature_dim=feature_dim)
    return text, regions


def require_width(reader: nn.Module, regions: PaddedRegions, *, feature_dim: int) -> None:
    """Regions as `reader` has learned to read them.

    Raises:
        ConfigError: the features have another width.
    """
    if (width := regions.features.shape[-1]) != feature_dim:
        raise ConfigError(
            f"{type(reader).__name__} takes region features of width {feature_dim}; those of this batch have "
            f"width {width}. Use features of the detector that it knows, or set model.feature_dim."
        )
