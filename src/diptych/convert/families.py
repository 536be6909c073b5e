"""The families whose files are known."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

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
from diptych.models.concat import BertTower, Concat, ImageTower
from diptych.models.end_to_end import EndToEnd, RegionEncoder

FAMILIES: tuple[Family, ...] = tuple(
    one.FAMILY for one in (bert, ernievil, lxmert, oscar, uniter, vilbert, visualbert, vlbert)
)


def load_model(model: nn.Module, path: Path | str) -> dict[str, Tensor]:
    """Fill a whole model from a file of its family; return the weights of heads, which belong to tasks.

    An end-to-end model takes its image network from the file, too, where that has one. A VL-BERT also starts
    from a BERT, as the original does: what sees stays new.

    Raises:
        ConfigError: others publish towers of such a model, but not the whole.
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is another family's, or of other sizes.
    """
    family_of(model, path)  # before a large file is read
    return fill_model(model, read_weights(path), where=path)


def fill_model(model: nn.Module, weights: Mapping[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """As `load_model`, from weights that have been read."""
    whole, model = model, model.model if isinstance(model, EndToEnd) else model
    family = family_of(model, where)
    layout = next((one for one in family.starts if one.backbone.split(weights) is not None), family)
    heads = layout.fill(model, layout.split(weights, where=where), where=where)
    if isinstance(whole, EndToEnd) and end_to_end.has_image_network(heads):
        end_to_end.fill_region_encoder(whole.regions, heads, where=where)
    return heads


def family_of(model: nn.Module, where: object) -> Family:
    """The family of a model whose files hold the whole of it.

    Raises:
        ConfigError: others publish towers of such a model, but not the whole.
    """
    model = model.model if isinstance(model, EndToEnd) else model
    family = next((one for one in FAMILIES if one.model is type(model) and one.builders), None)
    if family is None:
        raise ConfigError(
            f"weights.model={where}: {type(model).__name__} has no published checkpoint as a whole; "
            "say weights.text or weights.image."
        )
    return family


def load_towers(model: Concat, *, text: Path | str | None = None, image: Path | str | None = None) -> None:
    """Fill the towers of a `Concat` from published files; None leaves a tower as it is.

    Args:
        text: BERT's weights.
        image: ResNet's weights.

    Raises:
        ConfigError: the model has no such tower.
        FormatError: a file is not a weight file.
        CheckpointMismatch: a file does not fit its tower.
    """
    if text is not None:
        if not isinstance(model.text, BertTower):
            raise ConfigError(f"{text}: the model has no BERT to load it into; leave out the text weights.")
        bert.load_bert(model.text, text)
    if image is not None:
        if not isinstance(model.image, ImageTower):
            raise ConfigError(
                f"{image}: the model has no ResNet to load it into; leave out the image weights."
            )
        resnet.load_resnet(model.image.resnet, image)


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
