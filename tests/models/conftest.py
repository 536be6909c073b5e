"""Batches for tests of single families."""

from collections.abc import Callable

import pytest
import torch

from diptych.types import Inputs, PaddedRegions, PaddedText


@pytest.fixture(scope="session")
def rows() -> Callable[..., Inputs]:
    """Makes seeded rows of five tokens and four regions, all real."""

    def make(count: int = 3, tokens: int = 5, regions: int = 4, seed: int = 0) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, 99, (count, tokens), generator=generator)
        low = torch.rand(count, regions, 2, generator=generator) / 2
        high = low + torch.rand(count, regions, 2, generator=generator) / 2
        return Inputs(
            text=PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids)),
            regions=PaddedRegions(
                features=torch.randn(count, regions, 64, generator=generator),
                boxes=torch.cat([low, high], -1),
                mask=torch.ones(count, regions, dtype=torch.bool),
                image_index=torch.zeros(count, regions, dtype=torch.int64),
                sizes=torch.ones(count, 2),
            ),
        )

    return make
