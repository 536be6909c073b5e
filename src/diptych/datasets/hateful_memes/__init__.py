"""Hateful Memes: its files, cleaned training views, and a miniature world in its format."""

from diptych.datasets.hateful_memes.records import (
    LABELS,
    Meme,
    read_memes,
    split_path,
    write_answers,
    write_memes,
)
from diptych.datasets.hateful_memes.split import HatefulMemes

__all__ = [
    "LABELS",
    "HatefulMemes",
    "Meme",
    "read_memes",
    "split_path",
    "write_answers",
    "write_memes",
]
