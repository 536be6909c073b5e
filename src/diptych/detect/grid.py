"""Computes regions without a detector: cells of a feature map, or given boxes on it.

Grid features: Jiang et al., 2020, https://arxiv.org/abs/2001.03615. Difference: any stage and any weights.
"""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.data.transform import DetectorTransform, Picture
from diptych.documents import read_json
from diptych.errors import ConfigError, FormatError, nearest
from diptych.images import MEAN, STD
from diptych.nn import resnet
from diptych.nn.resnet import ResNet
from diptych.nn.roi import roi_align
from diptych.types import Regions

RESNETS = ("resnet50", "resnet101", "resnet152", "resnet_tiny")
FOREIGN = "transformers:"
BINS = 7  # of RoIAlign per side of a given box; their mean is the feature


class StageEncoder(nn.Module):
    """The feature map of one of the four stages of a ResNet, with 4, 8, 16 or 32 pixels per cell."""

    def __init__(self, network: ResNet, stage: int, *, size: int) -> None:
        super().__init__()
        self.prepare = _prepare(size, size * 5 // 3)  # the aspect ratio of 600 x 1000, as for detectors
        self.network, self.stage = network, stage
        # every stage doubles the channels; `body_dim` is that of the third
        self.dim = network.body_dim >> (3 - stage) if stage < 4 else 2 * network.body_dim
        self.eval().requires_grad_(False)

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D H W"]:
        network = self.network
        # as `ResNet.body`, but up to any stage; channels last makes convolutions faster
        x: Tensor = pixels.contiguous(memory_format=torch.channels_last)
        x = network.pool(F.relu(network.bn1(network.conv1(x)), inplace=True))
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4)[: self.stage]:
            x = layer(x)
        return x


class ForeignEncoder(nn.Module):
    """A vision model of `transformers`: its last feature map, or its patches arranged as a map.

    Images are resized to squares of `size` pixels, because such models are trained on squares.
    """

    def __init__(self, network: Any, *, size: int) -> None:
        super().__init__()
        self.prepare = _prepare(size, size, square=True)
        self.network = network
        self.eval().requires_grad_(False)
        self.dim = self(torch.zeros(1, 3, size, size)).shape[1]  # settings of models name it differently

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D H W"]:
        states: Tensor = self.network(pixel_values=pixels).last_hidden_state
        if states.ndim == 4:
            return states
        side = int(states.shape[1] ** 0.5)
        # Other tokens (class token, registers) come before the patches.
        maps: Tensor = states[:, states.shape[1] - side * side :].mT.unflatten(2, (side, side))
        return maps


MapEncoder = StageEncoder | ForeignEncoder


def build_map_encoder(backbone: str, *, stage: int = 4, size: int = 448) -> MapEncoder:
    """Build a frozen encoder: a ResNet with random weights, or a model of `transformers` with its own.

    Args:
        backbone: one of `RESNETS`, or `transformers:` followed by a folder or a name on the hub.
        size: pixels of the shorter side.

    Raises:
        ConfigError: the name or stage is unknown, or `transformers` cannot compute a map with it.
    """
    if backbone.startswith(FOREIGN):
        return _foreign(backbone.removeprefix(FOREIGN), size)
    if backbone not in RESNETS or not 1 <= stage <= 4 or size < 32:
        raise ConfigError(
            f"backbone {backbone!r}, stage {stage}, size {size}: expected one of {', '.join(RESNETS)} or "
            f"{FOREIGN}FOLDER, a stage from 1 to 4 and 32 pixels.{nearest(backbone, RESNETS)}"
        )
    network: ResNet = getattr(resnet, backbone)(classes=None, freeze_batch_norm=True)
    return StageEncoder(network, stage, size=size)


def grid_regions(features: Float[Tensor, "D h w"], picture: Picture, grid: tuple[int, int] | None) -> Regions:
    """The cells of the map as regions, row by row; the box of a cell is its part of the image.

    Args:
        grid: average the map to this number of rows and columns; None keeps it as it is.
    """
    if grid is not None:
        # Averages cells, so that all images have equally many regions.
        features = F.adaptive_avg_pool2d(features[None], grid)[0]
    rows, columns = features.shape[1:]
    width, height = picture.size
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    corners = np.stack([x, y, x + 1, y + 1], -1).reshape(-1, 4)
    boxes = (corners * np.array([width / columns, height / rows] * 2)).astype(np.float32)
    return Regions(features=features.flatten(1).T.cpu().numpy(), boxes=boxes, size=picture.size)


def box_regions(features: Float[Tensor, "D h w"], picture: Picture, boxes: Float[Tensor, "R 4"]) -> Regions:
    """Average RoIAlign of given boxes.

    Args:
        boxes: in pixels of the original image.
    """
    (width, height), (rows, columns) = picture.size, features.shape[1:]
    on_map = boxes.float() * torch.tensor([columns / width, rows / height] * 2)
    # the boxes are in cells of the map already, hence scale 1
    pooled = roi_align(features, on_map.to(features.device), size=BINS, scale=1.0)
    return Regions(features=pooled.mean((2, 3)).cpu().numpy(), boxes=boxes.numpy(), size=picture.size)


def _prepare(least: int, most: int, *, square: bool = False) -> DetectorTransform:
    (r, g, b), (dr, dg, db) = MEAN, STD  # for values of 0..1; DetectorTransform has 0..255
    mean, std = (255 * r, 255 * g, 255 * b), (255 * dr, 255 * dg, 255 * db)
    return DetectorTransform(least=least, most=most, mean=mean, std=std, blue_first=False, square=square)


def _require_harmless(folder: Path) -> None:
    """Refuse a folder whose loading would run code: only its settings and safetensors are read.

    Raises:
        FormatError: it has no settings, requires code of its own, or has no safetensors.
    """
    if (folder / "adapter_config.json").exists():  # transformers would load the other model unchecked
        raise FormatError(f"{folder}: has an adapter for another model; merge both and save the result.")
    # `auto_map` may be at any depth of nested settings; searched level by level, without recursion
    level: list[Any] = [read_json(folder / "config.json", dict[str, Any])]
    while level and not any(isinstance(node, dict) and "auto_map" in node for node in level):
        level = [inner for node in level if isinstance(node, dict) for inner in node.values()]
    if level:
        raise FormatError(
            f"{folder / 'config.json'}: auto_map requires code from the folder, which is not run. Use a "
            "model that is part of transformers."
        )
    if not any(folder.glob("*.safetensors")):
        raise FormatError(
            f"{folder}: has no *.safetensors; pickles are not opened. Save the model again with "
            "`save_pretrained(FOLDER, safe_serialization=True)`."
        )


def _foreign(name: str, size: int) -> ForeignEncoder:
    network = load_foreign(name)
    try:
        # CLIP and its relatives have a text model, too
        return ForeignEncoder(getattr(network, "vision_model", network), size=size)
    except Exception as error:  # of many classes, for models whose output is no map
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"transformers cannot compute a map with {name!r} at {size} pixels: {reason}"
        ) from error


def load_foreign(name: str) -> Any:
    """Load a model of `transformers` from a folder or the hub, without running code of either.

    Raises:
        ConfigError: transformers is not installed, or cannot load the model.
        FormatError: the folder needs code of its own, or has no safetensors.
    """
    try:
        library: Any = import_module("transformers")
    except Exception as error:
        raise ConfigError("this backbone needs transformers: pip install transformers") from error
    local = Path(name).is_dir()
    if local:
        _require_harmless(Path(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about heads in the weights that the encoder does not have
            # neither code nor pickles, also from the hub; a local folder never leads to a download
            return library.AutoModel.from_pretrained(
                name, use_safetensors=True, trust_remote_code=False, local_files_only=local
            )
    except Exception as error:  # transformers raises errors of many classes for unsuitable models
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"transformers cannot load {name!r}: {reason}") from error
