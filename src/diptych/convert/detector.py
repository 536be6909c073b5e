"""Detectors' weights: the pickles of py-bottom-up-attention, Hugging Face's copy, detectron2's C4 models.

All use the names of detectron2. A pickle is read by a reader that can make arrays and dictionaries only.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diptych.convert.load import read_weights
from diptych.convert.rules import Drop, Keep, Rule, Table, load_into, rename
from diptych.errors import FormatError

STAGES = (
    ("backbone.res2", "resnet.layer1"),
    ("backbone.res3", "resnet.layer2"),
    ("backbone.res4", "resnet.layer3"),
    ("roi_heads.res5", "resnet.layer4"),
)


def _block(source: str, target: str) -> tuple[Rule, ...]:
    return (
        *(rename(f"{source}.{{}}.conv{n}.norm", f"{target}.{{}}.bn{n}") for n in (1, 2, 3)),
        *(rename(f"{source}.{{}}.conv{n}", f"{target}.{{}}.conv{n}") for n in (1, 2, 3)),
        rename(f"{source}.{{}}.shortcut.norm", f"{target}.{{}}.downsample.1"),
        rename(f"{source}.{{}}.shortcut", f"{target}.{{}}.downsample.0"),
    )


RPN, BOX = "proposal_generator.rpn_head", "roi_heads.box_predictor"
COUNTERS = ("resnet.bn1", "resnet.layer{}.{}.bn{}", "resnet.layer{}.{}.downsample.{}")
PLAIN: Table = (
    rename("backbone.stem.conv1.norm", "resnet.bn1"),
    rename("backbone.stem.conv1", "resnet.conv1"),
    *(rule for source, target in STAGES for rule in _block(source, target)),
    rename(f"{RPN}.conv", "proposer.conv"),
    rename(f"{RPN}.objectness_logits", "proposer.objectness"),
    rename(f"{RPN}.anchor_deltas", "proposer.deltas"),
    rename(f"{BOX}.cls_score", "predictor.classes"),
    rename(f"{BOX}.bbox_pred", "predictor.deltas"),
    *(Keep(f"{norm}.num_batches_tracked", "only Hugging Face's copy counts") for norm in COUNTERS),
    Drop("proposal_generator.anchor_generator", "anchors are computed"),
)
ATTRIBUTES = {
    "cls_embedding": "class_vectors",
    "fc_attr": "attribute_hidden",
    "attr_score": "attributes",
}
DETECTOR: Table = (
    *PLAIN,
    *(rename(f"{BOX}.{source}", f"predictor.{target}") for source, target in ATTRIBUTES.items()),
)
WITHOUT_ATTRIBUTES: Table = (
    *PLAIN,
    *(Drop(f"{BOX}.{source}", "the detector has no attribute head") for source in ATTRIBUTES),
)


def load_detector(detector: nn.Module, path: Path | str) -> None:
    """Fill a `FasterRcnn` from a `.pkl`, a torch file or safetensors; attributes are left out if it has none.

    Raises:
        FormatError: the file is not a weight file, or a pickle of more than arrays.
        CheckpointMismatch: the file is not this detector's.
    """
    path = Path(path)
    weights = read_pickle(path) if path.suffix == ".pkl" else read_weights(path)
    fill_detector(detector, weights, where=path)


def fill_detector(detector: nn.Module, weights: dict[str, Tensor], *, where: object) -> None:
    """As `load_detector`, from weights that have been read."""
    attributes = any(name.startswith("predictor.attributes") for name in detector.state_dict())
    load_into(detector, weights, DETECTOR if attributes else WITHOUT_ATTRIBUTES, where=where)


def read_pickle(path: Path | str) -> dict[str, Tensor]:
    """The arrays below `model` of a pickle of detectron2, or of the pickle itself.

    Raises:
        FormatError: the file is cut short, or holds anything but numbers in arrays; nothing in it is run.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such weight file.")
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:  # broken bytes break the reader in many ways
        raise FormatError(f"{path}: not a whole pickle ({error}). Download or copy it again.") from error
    arrays = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(arrays, Mapping) or not arrays:
        raise FormatError(f"{path}: holds no arrays by name; expected a pickle of detectron2.")
    return {name: _tensor(name, array, path) for name, array in arrays.items()}


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays and containers; any other name in the file stops it before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "numpy"
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
            ("numpy", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise FormatError(
                f"refused, since it asks for {module}.{name}; expected arrays only. If you trust the file, "
                "save its arrays as safetensors with the program that made it."
            )
        return allowed[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """What protocol 2 stores bytes as."""
    if encoding != "latin1":
        raise FormatError(f"refused, since it asks for the codec {encoding!r}; expected latin1.")
    return text.encode("latin1")


def _tensor(name: object, array: object, path: Path) -> Tensor:
    if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "fi":
        raise FormatError(f"{path}: {name!r} is a {type(array).__name__}; expected an array of numbers.")
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).copy())
