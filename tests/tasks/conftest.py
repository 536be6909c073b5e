"""A model of known widths, and batches to score."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from diptych.types import EVERYTHING, Batch, Encoding, Inputs, PaddedRegions


class Widths(nn.Module):
    dim, text_dim, region_dim = 6, 6, 6
    needs = frozenset({"regions"})

    def word_embedding(self) -> None:
        return None

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        assert inputs.regions is not None
        return Encoding(pooled=inputs.regions.features.sum(1), regions=inputs.regions.features)


@pytest.fixture
def model() -> Widths:
    return Widths()


@pytest.fixture
def batch() -> Callable[..., Batch]:
    def make(targets: Any = None, *, rows: int = 4, pairs: int = 1) -> Batch:
        generator = torch.Generator().manual_seed(0)
        low = torch.rand(rows, 3, 2, generator=generator) / 2
        regions = PaddedRegions(
            features=torch.randn(rows, 3, 6, generator=generator),
            boxes=torch.cat([low, low + 0.5], -1),
            mask=torch.arange(3) < torch.tensor([3, 2, 1, 3])[:rows, None],
            image_index=torch.zeros(rows, 3, dtype=torch.int64),
            sizes=torch.tensor([[100.0, 50.0]]).expand(rows, 2),
        )
        return Batch(
            ids=tuple(f"m{row}" for row in range(rows // pairs)),
            inputs=Inputs(regions=regions),
            targets=None if targets is None else torch.as_tensor(targets),
            pairs=pairs,
        )

    return make
