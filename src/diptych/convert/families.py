"""The families whose files are known."""

from pathlib import Path

from torch import nn

from diptych.convert import (
    bert,
    end_to_end,
    ernievil,
    lxmert,
    oscar,
    resnet,
    uniter,
    vilbert,
    visualbert,
    vlbert,
)
from diptych.convert.family import Family
from diptych.convert.load import read_weights
from diptych.errors import ConfigError
from diptych.models.end_to_end import EndToEnd, RegionEncoder

FAMILIES: tuple[Family, ...] = tuple(
    one.FAMILY for one in (bert, ernievil, lxmert, oscar, uniter, vilbert, visualbert, vlbert)
)


def load_model(model: nn.Module, path: Path | str) -> None:
    """Fill a whole model from a file of its family, without the heads beside it.

    An end-to-end model takes its image network from the file, too, where that has one.

    Raises:
        ConfigError: others publish towers of such a model, but not the whole.
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is another family's, or of other sizes.
    """
    whole, model = model, model.model if isinstance(model, EndToEnd) else model
    family = next((one for one in FAMILIES if one.model is type(model) and one.builders), None)
    if family is None:
        raise ConfigError(
            f"weights.model={path}: {type(model).__name__} has no published checkpoint as a whole; "
            "say weights.text or weights.image."
        )
    weights = read_weights(path)
    family.fill(model, weights, where=path)
    if isinstance(whole, EndToEnd) and end_to_end.has_image_network(weights):
        end_to_end.fill_region_encoder(whole.regions, weights, where=path)


def load_region_encoder(encoder: RegionEncoder, path: Path | str) -> None:
    """Fill the image network of an end-to-end model from a checkpoint of VL-BERT, or from a ResNet's file.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: it holds no image network, or another one.
    """
    weights = read_weights(path)
    if end_to_end.has_image_network(weights):
        end_to_end.fill_region_encoder(encoder, weights, where=path)
    else:
        resnet.fill_resnet(encoder.resnet, weights, where=path)
