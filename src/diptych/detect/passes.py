"""What an extraction computes: a pass over the pictures for each detector, with its weights and box rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.detect.extractor import GRID, ExtractSettings
from diptych.errors import ConfigError, nearest

RANDOM = "random"  # instead of a file of weights
PRESETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "vilio": {"vgattr": ("36", "50", "72", "10:100"), "vg": ("50", "10:100")}
}
ATTRIBUTES_UNKNOWN = ("vg",)  # detectors that tell no attributes
MAY_BE_RANDOM = (GRID, "tiny")

Weights = Mapping[str, Path | str] | Path | str


def detectors_of(detector: str, preset: str | None) -> Mapping[str, tuple[str, ...]]:
    """The detectors of a preset with their rules, or the one with none.

    Raises:
        ConfigError: there is no such preset.
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
    """The settings of every pass; each goes to `extract`.

        for settings in passes(preset="vilio", weights={"vgattr": "attr.pkl", "vg": "plain.pkl"}):
            extract("memes/img", "features", settings)

    Args:
        rules: numbers of boxes, one store each; see `BoxRule.parse`.
        preset: detectors and rules instead of `detector` and `rules`: `vilio`.
        weights: a file, or files by detector, where `""` stands for all others; `random` gives boxes that
            mean nothing. `grid` and `tiny` are random where they have no file.
        attributes: names of the attributes that detectors with attributes tell apart.
        settings: further ones of `ExtractSettings`, of all passes.

    Raises:
        ConfigError: no such preset or detector, or a detector without weights.
    """
    detectors = detectors_of(detector, preset)
    files = weights if isinstance(weights, Mapping) else {} if weights is None else {"": weights}
    return [
        ExtractSettings(
            detector=name,
            rules=own or tuple(rules),
            weights=_weights(name, files),
            attributes=() if name in ATTRIBUTES_UNKNOWN else tuple(attributes),
            **settings,
        )
        for name, own in detectors.items()
    ]


def _weights(detector: str, files: Mapping[str, Path | str]) -> Path | None:
    """The weight file of a detector, None for random ones."""
    file = files.get(detector, files.get("", RANDOM if detector in MAY_BE_RANDOM else None))
    if file is None:
        raise ConfigError(
            f"detector {detector!r} needs its weights: say --weights {detector}=FILE, or --weights {RANDOM} "
            "to try things out with boxes that mean nothing."
        )
    return None if file == RANDOM else Path(file)
