"""Hateful Memes: its files, its views for training, its miniature world."""

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
