"""Goldens: what went into and came out of the original implementations, tiny and random."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.parity.heads import load_head
from torch import Tensor

from diptych import convert
from diptych.convert import restore
from diptych.models import ErnieVil
from diptych.nn import Sizes
from diptych.types import EVERYTHING, Batch, Inputs, PaddedRegions, PaddedText

FOLDER = Path(os.environ.get("DIPTYCH_GOLDENS", Path(__file__).parents[1] / "golden"))
CERTIFICATE = Path(convert.__file__).parent / "parity.json"  # what model cards of converted files quote
PROMISED = json.loads(CERTIFICATE.read_text())
MEASURED: dict[str, dict[str, dict[str, Any]]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--certificate", action="store_true", help="write what was measured into the package")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == 0 and session.config.getoption("--certificate", False):
        measured = {
            family: {name: one for name, one in goldens.items() if one["compared"]}
            for family, goldens in MEASURED.items()
            if family in {one.name for one in convert.FAMILIES}
        }
        merged = {name: PROMISED.get(name, {}) | measured.get(name, {}) for name in PROMISED | measured}
        merged = {name: one for name, one in merged.items() if one}
        CERTIFICATE.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Golden:
    name: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    measured: dict[str, Any] = field(default_factory=lambda: {"compared": 0, "worst": 0.0})

    def part(self, name: str) -> "Golden":
        """The inputs and outputs that start with `name.`."""
        inputs, outputs = _below(self.inputs, name), _below(self.outputs, name)
        return replace(self, inputs=inputs, outputs=outputs)

    def check(self, name: str, got: Tensor, rows: Any = ...) -> None:
        """Compare `rows` of one output of the original with ours."""
        expected = self.outputs[name][rows]
        largest = expected.abs().max().item() if expected.numel() else 0.0
        torch.testing.assert_close(
            got,
            expected,
            atol=2e-5
            * max(1.0, largest),  # numbers of other goldens may be larger, and so are their roundings
            rtol=1e-4,
            msg=lambda text: f"{self.name} {name}: {text}",
        )
        self.record(got, expected)

    def record(self, got: Tensor, expected: Tensor) -> None:
        """Remember the largest difference, as a share of the largest number where that is above 1."""
        if not expected.numel():
            return
        scale = max(1.0, expected.abs().max().item())
        worst = (got.detach().double() - expected.double()).abs().max().item() / scale
        self.measured["compared"] += 1
        self.measured["worst"] = max(self.measured["worst"], float(f"{worst:.1e}"))

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
            self.record(gradients[name], gradient)


@dataclass(frozen=True)
class Done:
    """What a task made of a golden."""

    encoding: Any
    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


@pytest.fixture
def perform() -> Callable[..., Done]:
    """Fill a task from an original head, let it score and learn; gradients have the names of the original."""

    def run(model, task, inputs, targets, *, weights, table, pairs=1, scale=1, reads=EVERYTHING) -> Done:
        load_head(task, weights, table, where="golden")
        ids = tuple(map(str, range(len(targets))))
        batch = Batch(ids=ids, inputs=inputs, targets=targets, pairs=pairs)
        encoding = model(inputs, reads)
        logits = task.eval().score(encoding, batch)
        loss = task.loss(logits, batch) * scale
        loss.backward()
        found = {name: one.grad for name, one in task.named_parameters() if one.grad is not None}
        return Done(encoding, logits, loss, restore(found, table))

    return run


@pytest.fixture
def build_ernievil() -> Callable[[dict[str, Any]], ErnieVil]:
    """From a configuration: layer counts follow from the numbers of the layers that come after meetings."""

    def build(config: dict[str, Any]) -> ErnieVil:
        text, vision = config["t_biattention_id"], config["v_biattention_id"]
        return ErnieVil(
            vocab_size=config["vocab_size"],
            feature_dim=config["feature_size"],
            text=Sizes(
                dim=config["hidden_size"],
                heads=config["num_attention_heads"],
                hidden=4 * config["hidden_size"],
                layers=text[-1] + 1,
            ),
            vision=Sizes(
                dim=config["v_hidden_size"],
                heads=config["v_num_attention_heads"],
                hidden=config["v_intermediate_size"],
                layers=vision[-1] + 1,
            ),
            bridge=Sizes(dim=config["co_hidden_size"], heads=config["co_num_attention_heads"]),
            meetings=list(zip(text, vision, strict=True)),
            max_positions=config["max_position_embeddings"],
            segments=config["sent_type_vocab_size"],
            eps=config["layer_norm_eps"],
        ).eval()

    return build


@pytest.fixture
def unpack_ernievil() -> Callable[[dict[str, Tensor]], Inputs]:
    """From a batch: its rows without the whole image, which our model adds itself."""

    def unpack(inputs: dict[str, Tensor]) -> Inputs:
        mask, boxes = inputs["image_mask"].bool(), inputs["image_loc"]
        return Inputs(
            text=PaddedText(
                ids=inputs["src_ids"], mask=inputs["input_mask"].bool(), segments=inputs["sentence_ids"]
            ),
            regions=PaddedRegions(
                features=inputs["image_embeddings"][:, 1:],
                boxes=boxes[:, 1:, :4],
                mask=mask[:, 1:],
                image_index=torch.zeros(mask[:, 1:].shape, dtype=torch.int64),
                sizes=torch.ones(len(boxes), 2),
            ),
        )

    return unpack


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}


collect_ignore = []
if "DIPTYCH_GOLDENS" not in os.environ:  # the repository's selection has none of theirs
    collect_ignore += ["test_detector.py", "test_end_to_end.py"]
if "DIPTYCH_VQA" not in os.environ:  # real records are not part of the repository
    collect_ignore += ["test_vqa.py"]
if "DIPTYCH_MLT" not in os.environ:
    collect_ignore += ["test_mlt.py"]


@pytest.fixture(scope="session")
def goldens() -> Path:
    return FOLDER


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Golden]]:
    family = MEASURED.setdefault(request.path.stem.removeprefix("test_"), {})
    loaded = set()

    def load(name: str) -> Golden:
        digest = hashlib.sha256((FOLDER / f"{name}.safetensors").read_bytes()).hexdigest()
        measured = family.setdefault(name, {"sha256": digest, "compared": 0, "worst": 0.0})
        loaded.add(name)
        tensors = load_file(FOLDER / f"{name}.safetensors")
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "inputs": {}, "outputs": {}}
        for key, tensor in tensors.items():
            part, _, rest = key.partition("/")
            parts[part][rest.replace("grad/", "grad.", 1)] = tensor  # VL-BERT's goldens have a slash
        config = json.loads((FOLDER / f"{name}.json").read_text())["config"]
        return Golden(name, config, **parts, measured=measured)

    yield load
    for name in loaded:
        promised = PROMISED.get(request.path.stem.removeprefix("test_"), {}).get(name, family[name])
        if promised["sha256"] == family[name]["sha256"]:  # of other sizes and seeds, nothing is promised
            # processors round differently
            assert family[name]["worst"] <= 3 * promised["worst"] + 2e-6, f"{CERTIFICATE} promises more"
