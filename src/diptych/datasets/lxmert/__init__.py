"""LXMERT's pre-training data: captions, region descriptions and questions of many sources, per image."""

from diptych.datasets.lxmert.split import LxmertPretraining

__all__ = ["LxmertPretraining"]
