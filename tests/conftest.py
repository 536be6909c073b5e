"""What tests of several rooms share.

Imports of diptych are in the functions: the process that hands out the tests needs none, and they take long.
"""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.real_weights import pytest_terminal_summary, weights  # noqa: F401  (a fixture and a hook)

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # the tests run beside each other


@pytest.fixture(scope="session")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature data set, to be read only."""
    from diptych.datasets import fabricate

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
def bundle(tmp_path: Path) -> Path:
    """A small model of text, its task and its processor, with a vocabulary of seven tokens."""
    import torch

    from diptych.bundle import save_bundle
    from diptych.recipe.call import call
    from diptych.text import write_vocabulary
    from diptych.types import FeatureMeta

    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")
    write_vocabulary(tmp_path / "vocabulary.txt", tokens)
    nodes = {
        "model": {"_target_": "diptych.models.text_bert_tiny", "vocab_size": len(tokens)},
        "processor": {
            "_target_": "diptych.data.Processor",
            "text": {"_target_": "diptych.text.WordPiece", "vocabulary": str(tmp_path / "vocabulary.txt")},
        },
        "task": {
            "_target_": "diptych.tasks.Classify",
            "labels": ["benign", "hateful"],
            "threshold": 0.3,
            "head": {"_target_": "diptych.nn.ClassifierHead", "_partial_": True, "layers": 1},
        },
    }
    torch.manual_seed(0)
    model = call(nodes["model"])
    task = call(nodes["task"], model=model)
    save_bundle(
        tmp_path / "bundle",
        model=model,
        task=task,
        nodes=nodes,
        features=FeatureMeta(feature_dim=5, classes=("sun", "boat")),
        metrics={"auroc": 0.75},
        provenance={"seed": 3},
    )
    (tmp_path / "vocabulary.txt").unlink()  # the bundle has its own
    return tmp_path / "bundle"


@pytest.fixture
def bert_weights() -> "dict[str, Tensor]":
    """A BERT of 2 layers and width 48, under the names of Hugging Face's `BertModel`."""
    import torch

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


@pytest.fixture
def spoiled(memes: Path, tmp_path: Path) -> Path:
    """A copy of the miniature data set that a test may spoil."""
    return Path(shutil.copytree(memes, tmp_path / "memes"))


@pytest.fixture(scope="session")
def pixel_run(memes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that reads text and pixels."""
    return trained("concat_bert_tiny", memes, tmp_path_factory.mktemp("runs") / "pixels")


@pytest.fixture(scope="session")
def region_run(memes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that reads text and regions."""
    return trained("uniter_tiny", memes, tmp_path_factory.mktemp("runs") / "regions")


@pytest.fixture(scope="session")
def box_run(memes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that reads text, pixels and a grid of boxes."""
    words = ["processor.prepare.least=32", "processor.grid=[2,2]"]
    return trained("end_to_end_tiny", memes, tmp_path_factory.mktemp("runs") / "boxes", *words)


def trained(experiment: str, root: Path, out: Path, *more: str) -> Path:
    from diptych.cli import main

    words = [*more, f"experiment=hateful_memes/{experiment}", f"root={root}", f"out={out}", "progress=false"]
    assert main(["train", *words, "loggers=[]", "trainer.max_steps=1"]) == 0
    return out
