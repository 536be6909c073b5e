"""COCO captions: Karpathy's splits and the official ones, and a miniature world in their format."""

from diptych.datasets.coco_captions.split import CocoCaptions

__all__ = ["CocoCaptions"]
