"""What tests of several rooms share."""

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
