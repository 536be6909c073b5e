"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one thing in a photograph."""

from diptych.datasets.refcoco.split import RefCoco

__all__ = ["RefCoco"]
