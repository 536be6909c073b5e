"""Settings of an extraction with several detectors: one pass over the images for each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.detect.extractor import GRID, ExtractSettings
from diptych.errors import ConfigError, nearest

RANDOM = "random"  # in place of a weight file
PRESETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "vilio": {"vgattr": ("36", "50", "72", "10:100"), "vg": ("50", "10:100")}
}
ATTRIBUTES_UNKNOWN = ("vg",)  # detectors without an attribute head
MAY_BE_RANDOM = (GRID, "tiny")  # without weights, these are random; others need a decision

Weights = Mapping[str, Path | str] | Path | str


def detectors_of(detector: str, preset: str | None) -> Mapping[str, tuple[str, ...]]:
    """The detectors of a preset with their rules, or `detector` without rules.

    Raises:
        ConfigError: the preset is unknown.
    """
    if preset is None:
        return {detector: ()}
    if preset not in PRESETS:
        raise ConfigError(
            f"preset is {preset!r}; expected one of {', '.join(PRESETS)}.{nearest(preset, PRESETS)}"
        )
    return PRESETS[preset]


def passes(
    detector: str = "vgattr",
    rules: Sequence[str] = ("36",),
    *,
    preset: str | None = None,
    weights: Weights | None = None,
    attributes: Sequence[str] = (),
    **settings: Any,
) -> list[ExtractSettings]:
    """The settings of every pass; call `extract` with each.

        for settings in passes(preset="vilio", weights={"vgattr": "attr.pkl", "vg": "plain.pkl"}):
            extract("memes/img", "features", settings)

    Args:
        rules: numbers of boxes, one store each; see `BoxRule.parse`.
        preset: `vilio`, which replaces `detector` and `rules`.
        weights: a file, or files by detector, with `""` as the key for all others. `random` means random
            weights, whose boxes are meaningless; it is the default for `grid` and `tiny`.
        attributes: attribute names, for the detectors that have attributes.
        settings: further settings of `ExtractSettings`, for all passes.

    Raises:
        ConfigError: the preset or detector is unknown, or a detector has no weights.
    """
    detectors = detectors_of(detector, preset)
    files = weights if isinstance(weights, Mapping) else {} if weights is None else {"": weights}
    return [
        ExtractSettings(
            detector=name,
            rules=own or tuple(rules),  # a preset has rules of its own
            weights=_weights(name, files),
            attributes=() if name in ATTRIBUTES_UNKNOWN else tuple(attributes),
            **settings,
        )
        for name, own in detectors.items()
    ]


def _weights(detector: str, files: Mapping[str, Path | str]) -> Path | None:
    """The weight file of a detector; None means random weights."""
    # The detector's own file, then the one for all, then random where that deceives nobody.
    file = files.get(detector, files.get("", RANDOM if detector in MAY_BE_RANDOM else None))
    if file is None:
        raise ConfigError(
            f"detector {detector!r} needs weights: use --weights {detector}=FILE, or --weights {RANDOM} "
            "for a trial with meaningless boxes."
        )
    return None if file == RANDOM else Path(file)
