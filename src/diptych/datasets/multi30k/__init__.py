"""Multi30k: captions in four languages and their translations, official files, and a miniature world."""

from diptych.datasets.multi30k.split import Multi30k

__all__ = ["Multi30k"]
