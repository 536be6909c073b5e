"""What tests of several rooms share."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from diptych.fabricate import fabricate


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the tests run beside each other


@pytest.fixture(scope="session")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature data set, to be read only."""
    folder = tmp_path_factory.mktemp("world") / "memes"
    fabricate(folder, size=80, seed=3)
    return folder


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """No file may grow beyond so many bytes inside the block."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def bert_weights() -> dict[str, torch.Tensor]:
    """A BERT of 2 layers and width 48, under the names of Hugging Face's `BertModel`."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embeddings.word_embeddings.weight": (1000, 48),
        "embeddings.position_embeddings.weight": (512, 48),
        "embeddings.token_type_embeddings.weight": (2, 48),
        "embeddings.LayerNorm.weight": (48,),
        "embeddings.LayerNorm.bias": (48,),
        "pooler.dense.weight": (48, 48),
        "pooler.dense.bias": (48,),
    }
    sizes = {
        "attention.self.query": (48, 48),
        "attention.self.key": (48, 48),
        "attention.self.value": (48, 48),
        "attention.output.dense": (48, 48),
        "attention.output.LayerNorm": (48,),
        "intermediate.dense": (192, 48),
        "output.dense": (48, 192),
        "output.LayerNorm": (48,),
    }
    for layer in range(2):
        for name, size in sizes.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = size
            shapes[f"encoder.layer.{layer}.{name}.bias"] = size[:1]
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
