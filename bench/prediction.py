"""A split to scores: batches of similar length, beside batches in file order padded to 128 tokens."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench._timing import in_turns
from torch.nn import functional as F

from diptych.bundle import Bundle
from diptych.data import Collate, Processor, Sources
from diptych.features import FeatureStore, write_store
from diptych.models import Uniter, uniter_base, uniter_tiny
from diptych.predict import Predictor
from diptych.predictions import Predictions
from diptych.tasks import Classify
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import Example, FeatureMeta, PaddedText, Pair, Regions

REGIONS, WIDTH, BATCH, TOKENS = 36, 2048, 16, 128

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    torch.manual_seed(0)
    for name, make, count in (("tiny", uniter_tiny, 256), ("base", uniter_base, 32)):
        with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
            yield predicting(name, make, Memes(Path(folder), count))


class Memes:
    """Texts as long as those of Hateful Memes (mean 17 tokens, lognormal), and regions in a store."""

    def __init__(self, folder: Path, count: int) -> None:
        random = np.random.default_rng(0)
        lengths = np.clip(random.lognormal(2.65, 0.55, count).round(), 4, TOKENS - 2).astype(int)
        texts = [" ".join(random.choice(list("abcdefghij"), length)) for length in lengths]
        write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, 100))
        self.tokenizer = WordPiece(folder / "vocabulary.txt")
        boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (REGIONS, 1))
        named = (
            (
                str(key),
                Regions(features=random.random((REGIONS, WIDTH), np.float32), boxes=boxes, size=(99, 99)),
            )
            for key in range(count)
        )
        self.store: FeatureStore = write_store(folder / "store", named, FeatureMeta(feature_dim=WIDTH))
        self.examples = [
            Example(id=str(key), pairs=(Pair(image=str(key), text=text),)) for key, text in enumerate(texts)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: Predictions, path: Path) -> None:
        raise NotImplementedError


def predicting(name: str, make: Callable[..., Uniter], memes: Memes) -> Row:
    """Both ways over the split, once to warm up; their scores must agree."""
    model = make(feature_dim=WIDTH, vocab_size=memes.tokenizer.vocab_size)
    task = Classify(model, labels=("benign", "hateful"))
    processor = Processor(text=memes.tokenizer, regions=True)
    predictor = Predictor(Bundle(model=model.eval(), task=task.eval(), processor=processor), device="cpu")
    collate = Collate(processor, sources=Sources(regions=memes.store))

    def fixed(examples: Sequence[Example]) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(examples), BATCH):
                batch = collate(examples[start : start + BATCH])
                assert batch.inputs.text is not None
                inputs = replace(batch.inputs, text=widened(batch.inputs.text))
                parts.append(task(model, replace(batch, inputs=inputs)).logits.double().softmax(-1).numpy())
        return np.concatenate(parts)

    def dynamic() -> Predictions:
        return predictor.predict_dataset(memes, features=memes.store, batch_size=BATCH)

    found, expected = dynamic(), fixed(memes.examples)
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)
    fast, slow = in_turns(dynamic, lambda: fixed(memes.examples), least=1, warm=False)
    count = len(memes)
    return (
        f"UNITER-{name}: {count} memes, {REGIONS} regions; {BATCH} of similar length a batch, same scores",
        f"{count / fast:,.1f} memes/s",
        f"file order, padded to {TOKENS} tokens: {count / slow:,.1f} memes/s",
        f"{slow / fast:.1f}x",
    )


def widened(text: PaddedText) -> PaddedText:
    """The same texts, padded to `TOKENS`."""
    more = (0, TOKENS - text.ids.shape[1])
    return PaddedText(
        ids=F.pad(text.ids, more), mask=F.pad(text.mask, more), segments=F.pad(text.segments, more)
    )
