"""Goldens: what went into and came out of the original implementations, tiny and random."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(os.environ.get("DIPTYCH_GOLDENS", Path(__file__).parents[1] / "golden"))


@dataclass(frozen=True)
class Golden:
    name: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def part(self, name: str) -> "Golden":
        """The inputs and outputs that start with `name.`."""
        return Golden(
            self.name, self.config, self.weights, _below(self.inputs, name), _below(self.outputs, name)
        )

    def check(self, name: str, got: Tensor, rows: Any = ...) -> None:
        """Compare `rows` of one output of the original with ours."""
        expected = self.outputs[name][rows]
        torch.testing.assert_close(
            got, expected, atol=2e-5, rtol=1e-4, msg=lambda text: f"{self.name} {name}: {text}"
        )

    def check_gradients(self, gradients: dict[str, Tensor]) -> None:
        """Compare every gradient that the golden holds; it holds at least one."""
        expected = _below(self.outputs, "grad")
        assert expected, f"{self.name} holds no gradients"
        for name, gradient in expected.items():
            largest = gradient.abs().max().item()
            torch.testing.assert_close(
                gradients[name],
                gradient,
                atol=1e-5 * max(1.0, largest),
                rtol=1e-4,
                msg=lambda text, name=name: f"{self.name} gradient of {name}: {text}",
            )


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}


if "DIPTYCH_GOLDENS" not in os.environ:  # the repository's selection has none of theirs
    collect_ignore = ["test_detector.py", "test_end_to_end.py"]


@pytest.fixture(scope="session")
def goldens() -> Path:
    return FOLDER


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    def load(name: str) -> Golden:
        tensors = load_file(FOLDER / f"{name}.safetensors")
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "inputs": {}, "outputs": {}}
        for key, tensor in tensors.items():
            part, _, rest = key.partition("/")
            parts[part][rest] = tensor
        config = json.loads((FOLDER / f"{name}.json").read_text())["config"]
        return Golden(name, config, **parts)

    return load
