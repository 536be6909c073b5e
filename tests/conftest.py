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
