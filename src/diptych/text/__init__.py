"""Subword tokens and sentence vectors."""

from diptych.text.fasttext import FastText, train_fasttext
from diptych.text.tokenizer import CachedTokenizer, WordPiece, learn_vocabulary, write_vocabulary

__all__ = [
    "CachedTokenizer",
    "FastText",
    "WordPiece",
    "learn_vocabulary",
    "train_fasttext",
    "write_vocabulary",
]
