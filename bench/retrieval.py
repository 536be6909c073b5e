"""Scores of all pairs: blocks that share tokens, features and one-sided layers, and a plain loop over pairs.

A thousand images by a thousand texts with models of base size are a million forward passes, so the time for
them is extrapolated from one measured block.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from bench._timing import in_turns, promise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diptych.bundle import Bundle
from diptych.data import Collate, Processor, Sources
from diptych.features import FeatureStore, write_store
from diptych.models import lxmert_base, vlbert_base
from diptych.predict import PairScorer, Predictor, sides_of
from diptych.predict.partial import blocks_of
from diptych.predictions import Predictions
from diptych.tasks import Match
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import Example, FeatureMeta, Pair, Regions

Row = tuple[str, ...]
WIDTH, IMAGES, TEXTS = 2048, 4, 6  # of the measured block
REGIONS = (36, 36, 30, 24)
WORDS = (8, 10, 11, 12, 14, 19)  # of captions of Multi30k: 12 on average
WHOLE = 1000 * 1000


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
        captions = Captions(Path(folder))
        yield scoring("VL-BERT-base", vlbert_base, captions, least=1.0)
        yield scoring("LXMERT-base", lxmert_base, captions, least=1.5)


class Captions:
    """Captions of a few images, and their regions in a store."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        texts = [" ".join(random.choice(list("abcdefghij"), count)) for count in WORDS]
        write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, 100))
        self.tokenizer = WordPiece(folder / "vocabulary.txt")
        images = (
            (
                str(key),
                Regions(
                    features=random.random((count, WIDTH), np.float32),
                    boxes=np.tile(np.array([0, 0, 50, 50], np.float32), (count, 1)),
                    size=(99, 99),
                ),
            )
            for key, count in enumerate(REGIONS)
        )
        self.store: FeatureStore = write_store(folder / "store", images, FeatureMeta(feature_dim=WIDTH))
        self.examples = [
            Example(id=str(row), pairs=(Pair(image=str(row % IMAGES), text=text),), target=1)
            for row, text in enumerate(texts)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: Predictions, path: Path) -> None:
        raise NotImplementedError


def scoring(name: str, make: Callable[..., nn.Module], captions: Captions, *, least: float) -> Row:
    """Both ways over the block; their scores must agree."""
    model = make(vocab_size=captions.tokenizer.vocab_size, feature_dim=WIDTH).eval()
    task = Match(model).eval()
    processor = Processor(text=captions.tokenizer, regions=True)
    predictor = Predictor(Bundle(model=model, task=task, processor=processor), device="cpu")
    sources, sides = Sources(regions=captions.store), sides_of(captions)
    collate = Collate(processor, sources=sources)

    def blocks() -> np.ndarray:
        scorer = PairScorer(predictor, sides, sources)  # anew, so that reading and tokenizing count
        table = np.zeros(sides.shape)
        for some, others in blocks_of(scorer.lengths, sides.owners, size=IMAGES * TEXTS):
            table[np.ix_(some, others)] = scorer.block(some, others)
        return table

    @torch.inference_mode()
    def plain() -> np.ndarray:
        pairs = (Example(id="", pairs=(sides.pair(*cell),)) for cell in np.ndindex(sides.shape))
        batches = (collate([pair]) for pair in pairs)  # the original: one pair, read and tokenized anew
        scores = [task.score(model(batch.inputs, reads=task.reads), batch).item() for batch in batches]
        return np.reshape(scores, sides.shape)

    np.testing.assert_allclose(blocks(), plain(), atol=1e-3)
    with FlopCounterMode(display=False) as counter:
        blocks()
    fast, slow = in_turns(blocks, plain, least=1, warm=False, clock=time.process_time)
    count = sides.shape[0] * sides.shape[1]
    floor = counter.get_total_flops() / count * WHOLE
    hours = fast / count * WHOLE / 3600
    return (
        f"{name}: {sides.shape[0]} x {sides.shape[1]} of 1,000 x 1,000 pairs; all of them (extrapolated): "
        f"{hours:,.1f} hours of one core, {floor / 1e15:.1f} PFLOP = {floor / speed() / 3600:,.1f} hours at "
        "the rate of a large matrix product",
        f"{count / fast:,.1f} pairs/s",
        f"a loop over pairs: {count / slow:,.1f} pairs/s",
        f"{slow / fast:.2f}x",
        promise(f">= {least:g}x", slow / fast >= least),
    )


def speed(side: int = 1024) -> float:
    """Floating-point operations per second of a matrix product."""
    one = torch.randn(side, side)
    one @ one
    start = time.process_time()
    for _ in range(4):
        one @ one
    return float(4 * 2 * side**3 / (time.process_time() - start))
