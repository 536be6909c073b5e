"""Plain text corpora, which VL-BERT and MM-BERT read beside captions."""

from diptych.datasets.corpus.split import Corpus

__all__ = ["Corpus"]
