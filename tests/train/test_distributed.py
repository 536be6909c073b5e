import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_script


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, "-W", "error", training_script.__file__, "ranks", str(folder)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", training_script.RUNS)
def test_two_processes_equal_one(two_processes, tmp_path, name):
    training_script.run(name, tmp_path, batch_size=8, dropout=0.0)
    one, two = (
        torch.load(folder / "weights.pt", weights_only=True) for folder in (tmp_path, two_processes / name)
    )
    for key, tensor in one.items():
        torch.testing.assert_close(
            tensor, two[key], rtol=1e-5, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}"
        )
    records = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["record"]["history"]
        for folder in (tmp_path, two_processes / name)
    ]
    for left, right in zip(*records, strict=True):
        assert left == pytest.approx(right, abs=1e-5)
