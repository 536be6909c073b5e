"""A picture and its text: one toolkit for vision-and-language transformers.

Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.errors import DiptychError
    from diptych.predict import Predictor, load
    from diptych.predictions import Predictions
    from diptych.types import Batch, Encoding, Example, Inputs, Pair, Regions

__version__ = "0.2.0"
__all__ = [
    "Batch",
    "DiptychError",
    "Encoding",
    "Example",
    "Inputs",
    "Pair",
    "Predictions",
    "Predictor",
    "Regions",
    "load",
]

_HOMES = {
    "diptych.errors": ("DiptychError",),
    "diptych.predict": ("Predictor", "load"),
    "diptych.predictions": ("Predictions",),
    "diptych.types": ("Batch", "Encoding", "Example", "Inputs", "Pair", "Regions"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'diptych' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
