"""A model, a task and data small enough that a run takes a moment; also used by subprocesses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.data.module import DataModule
from diptych.predictions import Predictions
from diptych.tasks.base import Task
from diptych.types import EVERYTHING, Batch, Encoding, Example, Inputs, PaddedText, Pair


class Words:
    """Examples whose text is random digits; the label says whether the first is larger than the last."""

    def __init__(self, count: int, seed: int = 0, labels: bool = True) -> None:
        random = np.random.default_rng(seed)
        self.examples = []
        for number in range(count):
            digits = random.integers(0, 10, random.integers(2, 12))
            target = int(digits[0] > digits[-1]) if labels else None
            text = " ".join(map(str, digits))
            self.examples.append(Example(id=str(number), pairs=(Pair(image=None, text=text),), target=target))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: Predictions, path: object) -> None:
        raise AssertionError("these tests write no submission")


class Digits:
    """Collates `Words`."""

    def length(self, example: Example) -> int:
        return len(example.pairs[0].text.split())

    def __call__(self, examples: Sequence[Example]) -> Batch:
        rows = [[int(word) + 1 for word in example.pairs[0].text.split()] for example in examples]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        text = PaddedText(ids=ids, mask=ids > 0, segments=torch.zeros_like(ids))
        known = all(example.target is not None for example in examples)
        return Batch(
            ids=tuple(example.id for example in examples),
            inputs=Inputs(text=text),
            targets=torch.tensor([example.target for example in examples]) if known else None,
        )


class Bag(nn.Module):
    """First word, last word and their mean, through one hidden layer with dropout."""

    text_dim = region_dim = 0
    needs = frozenset({"text"})

    def __init__(self, dim: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        self.dim = dim
        self.words, self.norm = nn.Embedding(11, dim), nn.LayerNorm(3 * dim)
        self.layers = nn.ModuleList([nn.Linear(3 * dim, dim), nn.Linear(dim, dim)])
        self.unused = nn.Parameter(torch.zeros(3))
        self.dropout = nn.Dropout(dropout)

    def word_embedding(self) -> nn.Embedding:
        return self.words

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        assert inputs.text is not None
        states, mask = self.words(inputs.text.ids), inputs.text.mask[..., None]
        last = states.take_along_dim(mask.sum(1, keepdim=True) - 1, 1)[:, 0]
        x = torch.cat([states[:, 0], last, (states * mask).sum(1) / mask.sum(1)], -1)
        x = self.norm(x)
        for layer in self.layers:
            x = torch.relu(layer(self.dropout(x)))
        return Encoding(pooled=x)


class Compare(Task):
    """Two classes; the metric is accuracy."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.head = nn.Linear(dim, 2)

    def score(self, encoding: Encoding, batch: Batch) -> Tensor:
        return self.head(encoding.pooled)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.targets)

    def decode(self, logits: Tensor, batch: Batch) -> Predictions:
        scores = logits.float().softmax(-1).cpu().numpy()
        return Predictions(ids=batch.ids, scores=scores, classes=("0", "1"))

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        assert predictions.scores is not None
        gold = [targets[key] for key in predictions.ids]
        if len(set(gold)) < 2:
            return {"accuracy": float("nan")}
        return {"accuracy": float((predictions.scores.argmax(-1) == gold).mean())}


def parts(seed: int = 0, dropout: float = 0.3) -> tuple[Bag, Compare]:
    torch.manual_seed(seed)
    return Bag(dropout=dropout), Compare()


def data(train: int = 90, validate: int = 40, **settings: Any) -> DataModule:
    held_out = Words(validate, seed=1) if validate else None
    return DataModule(
        **({"train": Words(train), "validate": held_out, "collate": Digits(), "batch_size": 8} | settings)
    )
