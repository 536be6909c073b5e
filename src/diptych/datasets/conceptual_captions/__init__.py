"""Conceptual Captions: pictures of the web with a caption each, for pre-training."""

from diptych.datasets.conceptual_captions.split import ConceptualCaptions

__all__ = ["ConceptualCaptions"]
