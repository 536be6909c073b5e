"""Flickr30k: five captions of each photograph, and a miniature world in its format."""

from diptych.datasets.flickr30k.split import Flickr30k

__all__ = ["Flickr30k"]
