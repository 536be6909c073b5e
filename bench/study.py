"""Members over splits: stores opened and texts tokenized once, beside every member by itself."""

import base64
import csv
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench._timing import in_turns, promise
from bench.prediction import TOKENS, WIDTH, Memes, widened

from diptych.bundle import Bundle
from diptych.data import Collate, Processor, Sources
from diptych.features import FeatureStore, write_tsv
from diptych.models import ernievil_tiny, uniter_tiny, visualbert_tiny
from diptych.predict import GivenRegions, Predictor
from diptych.tasks import Classify
from diptych.text import CachedTokenizer
from diptych.types import Example, Regions

MEMBERS, SPLIT, BATCH = 19, 60, 8
FAMILIES = (uniter_tiny, visualbert_tiny, ernievil_tiny)

Row = tuple[str, str, str, str, str]


class Split:
    """Some of the memes."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: object, path: Path) -> None:
        raise NotImplementedError


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
        memes = Memes(Path(folder), 3 * SPLIT)
        tsv = Path(folder) / "features.tsv"
        write_tsv(tsv, ((key, memes.store[key]) for key in memes.store))
        splits = [Split(memes.examples[start : start + SPLIT]) for start in range(0, 3 * SPLIT, SPLIT)]
        members = [member(number, memes) for number in range(MEMBERS)]
        np.testing.assert_allclose(ours(members, splits, memes), others(members, splits, tsv), atol=1e-5)
        fast, slow = in_turns(
            lambda: ours(members, splits, memes), lambda: others(members, splits, tsv), least=1, warm=False
        )
        few, many = (peak(way, members[:1], splits, place) for way, place in ((ours, memes), (others, tsv)))
    ratio = slow / fast
    yield (
        f"{MEMBERS} tiny members x 3 splits of {SPLIT} memes, equal probabilities to 1e-5",
        f"{fast:.1f} s",
        f"each reads the TSV for each split, pads to {TOKENS}, file order: {slow:.1f} s",
        f"{ratio:.1f}x",
        promise("at least 5x", ratio >= 5),
    )
    yield (
        "one of the members, most memory of Python and NumPy at a time",
        f"{few / 2**20:.1f} MiB",
        f"{many / 2**20:.1f} MiB",
        f"{many / few:.1f}x",
        "",
    )


def peak(way: Callable[..., np.ndarray], *arguments: object) -> int:
    """The most bytes at a time during a call; stores are mapped into memory and weigh nothing."""
    tracemalloc.start()
    way(*arguments)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def member(number: int, memes: Memes) -> Predictor:
    torch.manual_seed(number)
    model = FAMILIES[number % len(FAMILIES)](feature_dim=WIDTH, vocab_size=memes.tokenizer.vocab_size)
    task = Classify(model, labels=("benign", "hateful"))
    processor = Processor(text=memes.tokenizer, regions=True)
    return Predictor(Bundle(model=model.eval(), task=task.eval(), processor=processor), device="cpu")


def ours(members: list[Predictor], splits: list[Split], memes: Memes) -> np.ndarray:
    store, memory = FeatureStore(memes.store.path), {}
    parts = []
    for one in members:
        one.processor.text = CachedTokenizer(memes.tokenizer, memory)
        found = [
            one.predict_dataset(split, features=store, batch_size=BATCH).column("hateful") for split in splits
        ]
        parts.append(np.concatenate(found))
    return np.stack(parts)


def others(members: list[Predictor], splits: list[Split], tsv: Path) -> np.ndarray:
    parts = []
    for one in members:
        scores = []
        for split in splits:
            source = GivenRegions(parsed(tsv, {example.id for example in split.examples}))
            collate = Collate(one.processor, sources=Sources(regions=source))
            with torch.inference_mode():
                for start in range(0, len(split), BATCH):
                    batch = collate(split.examples[start : start + BATCH])
                    assert batch.inputs.text is not None
                    inputs = replace(batch.inputs, text=widened(batch.inputs.text))
                    logits = one.task(one.model, replace(batch, inputs=inputs)).logits
                    scores.append(logits.double().softmax(-1)[:, 1].numpy())
        parts.append(np.concatenate(scores))
    return np.stack(parts)


def parsed(tsv: Path, wanted: set[str]) -> dict[str, Regions]:
    """Every line of the file, as the original reads it; those of other splits are thrown away."""
    csv.field_size_limit(sys.maxsize)
    found = {}
    with tsv.open(newline="") as file:
        for row in csv.reader(file, delimiter="\t"):
            key, height, width, count = row[0], int(row[1]), int(row[2]), int(row[7])
            if key in wanted:
                boxes, features = (np.frombuffer(base64.b64decode(cell), np.float32) for cell in row[8:10])
                found[key] = Regions(
                    features=features.reshape(count, -1), boxes=boxes.reshape(count, 4), size=(width, height)
                )
    return found
