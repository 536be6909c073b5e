"""Multimodal lexical translation: official files, the evaluation of 2018, and a miniature world."""

from diptych.datasets.mlt.split import Mlt

__all__ = ["Mlt"]
