"""Subword tokens, sentence vectors, and the spelling of answers."""

from diptych.text.answers import normalize_answer
from diptych.text.bpe import BytePair
from diptych.text.fasttext import FastText, train_fasttext
from diptych.text.pieces import detokenize, join_pieces
from diptych.text.sentence_piece import SentencePiece
from diptych.text.tokenizer import CachedTokenizer, WordPiece, learn_vocabulary, write_vocabulary

__all__ = [
    "BytePair",
    "CachedTokenizer",
    "FastText",
    "SentencePiece",
    "WordPiece",
    "detokenize",
    "join_pieces",
    "learn_vocabulary",
    "normalize_answer",
    "train_fasttext",
    "write_vocabulary",
]
