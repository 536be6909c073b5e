"""Training: what `fit` costs beside a bare loop, and what sorting by length saves.

Times are the processor's, so that other work on the machine does not count.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from diptych.data import DataModule
from diptych.data.module import Collator
from diptych.data.sampler import Plan
from diptych.models import uniter_tiny
from diptych.predictions import Predictions
from diptych.tasks import Classify
from diptych.tasks.base import Task
from diptych.train import Trainer, adamw, fit, linear
from diptych.types import Batch, Encoding, Example, Inputs, PaddedRegions, PaddedText, Pair

REPEATS = 3
WIDTH, BATCH = 64, 8

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """(what, ours, other, ratio) as they are measured."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield _overhead("a two-layer model", lambda: (Small(), Halves()), Vectors(), steps=400)
        yield _overhead("UNITER-tiny, 32 memes with 8 regions", _tiny, Memes(), steps=60)
    finally:
        torch.set_num_threads(threads)
    yield _padding()


class Random:
    """Vectors whose first number tells the class."""

    def __len__(self) -> int:
        return 4000

    def __getitem__(self, index: int) -> Example:
        return Example(id=str(index), pairs=(Pair(image=None, text=""),), target=index % 2)

    def write(self, predictions: Predictions, path: object) -> None:
        raise NotImplementedError


class Vectors:
    """Collates `Random`."""

    def length(self, example: Example) -> int:
        return 1

    def __call__(self, examples: Sequence[Example]) -> Batch:
        targets = torch.tensor([example.target for example in examples])
        vectors = torch.zeros(len(examples), WIDTH) + targets[:, None]
        return Batch(ids=tuple(one.id for one in examples), inputs=Inputs(vectors=vectors), targets=targets)


class Small(nn.Module):
    """Two layers: a model so small that everything beside it shows."""

    dim, text_dim, region_dim = WIDTH, 0, 0
    needs = frozenset({"vectors"})

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def word_embedding(self) -> None:
        return None

    def forward(self, inputs: Inputs) -> Encoding:
        assert inputs.vectors is not None
        return Encoding(pooled=self.layers(inputs.vectors))


class Halves(Task):
    """Two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 2)

    def score(self, encoding: Encoding, batch: Batch) -> Tensor:
        scores: Tensor = self.head(encoding.pooled)
        return scores

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        assert batch.targets is not None
        return nn.functional.cross_entropy(logits, batch.targets)

    def decode(self, logits: Tensor, batch: Batch) -> Predictions:
        return Predictions(ids=batch.ids)

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        return {}


class Memes:
    """The same 32 memes with every label, whatever is asked for."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1, 1000, (32, 20), generator=generator)
        self.inputs = Inputs(
            text=PaddedText(ids=ids, mask=ids > 0, segments=torch.zeros_like(ids)),
            regions=PaddedRegions(
                features=torch.randn(32, 8, 64, generator=generator),
                boxes=torch.rand(32, 8, 4, generator=generator),
                mask=torch.ones(32, 8, dtype=torch.bool),
                image_index=torch.zeros(32, 8, dtype=torch.int64),
                sizes=torch.ones(32, 2),
            ),
        )

    def length(self, example: Example) -> int:
        return 1

    def __call__(self, examples: Sequence[Example]) -> Batch:
        ids = tuple(str(number) for number in range(32))
        return Batch(ids=ids, inputs=self.inputs, targets=torch.arange(32) % 2)


def _tiny() -> tuple[nn.Module, Task]:
    model = uniter_tiny()
    return model, Classify(model, labels=("benign", "hateful"))


def _overhead(what: str, make: Callable[[], tuple[nn.Module, Task]], collate: Collator, *, steps: int) -> Row:
    def data() -> DataModule:
        return DataModule(train=Random(), collate=collate, batch_size=BATCH)

    def ours(steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(
                *make(),
                data(),
                folder=folder,
                optim=adamw(lr=1e-3),
                schedule=linear(),
                trainer=Trainer(max_steps=steps, accelerator="cpu"),
                loggers=[],
                progress=False,
            )

    def bare(steps: int) -> None:
        model, task = make()
        optimizer = adamw(lr=1e-3)(model, task)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        source = data()
        for batch in source.train_loader(source.plan(seed=0), start=0, stop=steps):
            loss = task(model, batch).loss
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(weights, 1.0)
            optimizer.step()

    ours(10)
    mine, other = _per_step(ours, steps), _per_step(bare, steps)
    return (
        f"training step of {what} (fit adds {(mine - other) * 1e3:.2f} ms)",
        f"{1 / mine:.0f} steps/s",
        f"bare loop {1 / other:.0f} steps/s",
        f"{other / mine:.2f}x",
    )


def _per_step(run: Callable[[int], None], count: int) -> float:
    """Processor seconds of one step, without what starting and ending costs."""

    def seconds(steps: int) -> float:
        began = time.process_time()
        run(steps)
        return time.process_time() - began

    return min(seconds(count + count // 8) - seconds(count // 8) for _ in range(REPEATS)) / count


def _padding() -> Row:
    """Tokens of one epoch of 8,500 texts as long as those of Hateful Memes (mean 17, at most 128)."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.65, 0.55, 8500).round(), 4, 128).astype(int)
    steps = Plan(len(lengths), batch_size=BATCH, lengths=lengths).epoch(0)
    padded = sum(int(lengths[step].max()) * len(step) for step in steps)
    fixed = 128 * len(lengths)
    what = f"tokens per epoch, {lengths.sum() / 1e3:.0f} k of them real"
    return what, f"{padded / 1e3:.0f} k", f"padded to 128: {fixed / 1e3:.0f} k", f"{fixed / padded:.1f}x"
