"""All families of published weights, and loading of their files into models."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from diptych.convert import (
    bert,
    clip,
    end_to_end,
    ernievil,
    lxmert,
    mobilenet,
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
from diptych.models.concat import BertTower, Concat, ImageTower
from diptych.models.end_to_end import EndToEnd, RegionEncoder
from diptych.models.lxmert import Lxmert
from diptych.nn.mobilenet import MobileNet

FAMILIES: tuple[Family, ...] = (
    *(module.FAMILY for module in (bert, ernievil, lxmert, oscar, uniter, vilbert, visualbert, vlbert)),
    *clip.FAMILIES,
)


def load_model(model: nn.Module, path: Path | str) -> dict[str, Tensor]:
    """Fill a model from a file of its family, and return the weights of heads, which belong to tasks.

    An end-to-end model also takes its image network from the file if there is one. A VL-BERT can start from a
    BERT, as the original does; its visual parts then stay new.

    Raises:
        ConfigError: there are published weights for the towers of such a model only.
        FormatError: the file is not a weight file.
        CheckpointMismatch: the weights belong to another family, or have other sizes.
    """
    family_of(model, path)  # fail before a large file is read
    return fill_model(model, read_weights(path), where=path)


def fill_model(model: nn.Module, weights: Mapping[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """Same as `load_model`, with weights that have been read."""
    # The transformer and the image network come from one file, but by two tables.
    whole, model = model, model.model if isinstance(model, EndToEnd) else model
    family = family_of(model, where)
    # A file of another family is no error if the model can start from it.
    layout = next((start for start in family.starts if start.backbone.split(weights) is not None), family)
    heads = layout.fill(model, layout.split(weights, where=where), where=where)
    if isinstance(whole, EndToEnd) and end_to_end.has_image_network(heads):
        end_to_end.fill_region_encoder(whole.regions, heads, where=where)
    return heads


def family_of(model: nn.Module, where: object) -> Family:
    """Return the family whose files fill such a model completely.

    Raises:
        ConfigError: there are published weights for the towers of such a model only.
    """
    model = model.model if isinstance(model, EndToEnd) else model
    # BERT has no builders: its files fill the text tower of a `Concat`, not the whole model.
    family = next((family for family in FAMILIES if family.model is type(model) and family.builders), None)
    if family is None:
        raise ConfigError(
            f"weights.model={where}: there is no published checkpoint of a whole {type(model).__name__}; "
            "set weights.text or weights.image."
        )
    return family


def load_parts(
    model: nn.Module, *, text: Path | str | None = None, image: Path | str | None = None
) -> dict[str, Tensor]:
    """Fill parts of a model from files of their own, and return the heads of the text file.

    These parts are the towers of a `Concat`, the text encoder of LXMERT (heads are returned for this one
    only), and the image network of an end-to-end model.

    Raises:
        ConfigError: the model has no such part.
        FormatError: a file is not a weight file.
        CheckpointMismatch: the weights do not fit the part.
    """
    heads: dict[str, Tensor] = {}
    if isinstance(model, EndToEnd) and image is not None:
        # Taken here, so that None says below that nothing is left for towers.
        load_region_encoder(model.regions, image)
        image = None
    if isinstance(model, Lxmert) and text is not None:
        heads, text = lxmert.load_text_encoder(model, text), None
    if isinstance(model, Concat):
        load_towers(model, text=text, image=image)
    elif text is not None or image is not None:
        raise ConfigError(f"{type(model).__name__} has no separate towers; set weights.model instead.")
    return heads


def load_towers(model: Concat, *, text: Path | str | None = None, image: Path | str | None = None) -> None:
    """Fill the towers of a `Concat` from published files.

    Args:
        text: weights of a BERT. None does not change the text tower.
        image: weights of a ResNet, or of the MobileNet of the tower. None does not change the image tower.

    Raises:
        ConfigError: the model has no such tower.
        FormatError: a file is not a weight file.
        CheckpointMismatch: the weights do not fit the tower.
    """
    if text is not None:
        if not isinstance(model.text, BertTower):
            raise ConfigError(f"{text}: the model has no BERT for these weights; remove weights.text.")
        bert.load_bert(model.text, text)
    if image is not None:
        if not isinstance(model.image, ImageTower):
            raise ConfigError(
                f"{image}: the model has no image network for these weights; remove weights.image."
            )
        if isinstance(network := model.image.resnet, MobileNet):
            mobilenet.load_mobilenet(network, image)
        else:
            resnet.load_resnet(network, image)


def load_region_encoder(encoder: RegionEncoder, path: Path | str) -> None:
    """Fill the image network of an end-to-end model from a checkpoint of VL-BERT or of a ResNet.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the weights have no image network, or another one.
    """
    weights = read_weights(path)
    if end_to_end.has_image_network(weights):
        end_to_end.fill_region_encoder(encoder, weights, where=path)
    else:
        resnet.fill_resnet(encoder.resnet, weights, where=path)
