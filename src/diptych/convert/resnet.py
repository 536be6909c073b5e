"""ResNet: the weights that torchvision publishes. The names are the same here."""

from pathlib import Path

from torch import Tensor

from diptych.convert.load import read_weights
from diptych.convert.rules import Drop, Keep, Table, load_into, rename
from diptych.nn.resnet import ResNet

PARTS = ("conv1", "bn1", "layer{}", "fc")
COUNTERS = ("bn1", "layer{}.{}.bn{}", "layer{}.{}.downsample.{}")
RESNET: Table = (
    *(rename(part, part) for part in PARTS),
    # They count batches of training; with a fixed momentum, no result depends on them.
    *(Keep(f"{norm}.num_batches_tracked", "files of 2017 lack these counters") for norm in COUNTERS),
)
HEADLESS: Table = (
    *(rename(part, part) for part in PARTS[:-1]),
    *RESNET[len(PARTS) :],
    Drop("fc", "the classifier of ImageNet, which the network does not have"),
)


def load_resnet(resnet: ResNet, path: Path | str) -> None:
    """Fill a ResNet. The layer `fc` of the file is left out if the network has none.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the weights belong to another ResNet.
    """
    fill_resnet(resnet, read_weights(path), where=path)


def fill_resnet(resnet: ResNet, weights: dict[str, Tensor], *, where: object) -> None:
    """Same as `load_resnet`, with weights that have been read."""
    headless = not any(name.startswith("fc.") for name in resnet.state_dict())
    load_into(resnet, weights, HEADLESS if headless else RESNET, where=where)
