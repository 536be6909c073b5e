"""Emoji: real pictures of a font with the words of Unicode's translators, in 28 languages."""

from diptych.datasets.emoji.split import Emoji

__all__ = ["Emoji"]
