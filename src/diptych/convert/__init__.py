"""Weights of others into our models: a table of rules per family, an engine that accounts for every name."""

from pathlib import Path

from diptych.convert.bert import load_bert
from diptych.convert.detector import load_detector
from diptych.convert.ernievil import load_ernievil
from diptych.convert.families import FAMILIES, load_model, load_region_encoder
from diptych.convert.family import Family, Found, Head
from diptych.convert.fetch import checkpoints, download, find
from diptych.convert.heads import HEADS, MATCHES, load_head
from diptych.convert.load import Source, read_source, read_weights
from diptych.convert.lxmert import load_lxmert, transfer_answers
from diptych.convert.oscar import load_oscar
from diptych.convert.paddle import read_paddle
from diptych.convert.recognize import choose_head, dropped, recognize
from diptych.convert.resnet import load_resnet
from diptych.convert.rules import kept, load_into, restore
from diptych.convert.uniter import load_uniter
from diptych.convert.vilbert import load_vilbert
from diptych.convert.visualbert import load_visualbert
from diptych.convert.vlbert import load_mmbert, load_vlbert
from diptych.errors import ConfigError
from diptych.models.concat import BertTower, Concat, ImageTower

__all__ = [
    "FAMILIES",
    "HEADS",
    "MATCHES",
    "Family",
    "Found",
    "Head",
    "Source",
    "checkpoints",
    "choose_head",
    "download",
    "dropped",
    "find",
    "kept",
    "load_bert",
    "load_detector",
    "load_ernievil",
    "load_head",
    "load_into",
    "load_lxmert",
    "load_mmbert",
    "load_model",
    "load_oscar",
    "load_region_encoder",
    "load_resnet",
    "load_towers",
    "load_uniter",
    "load_vilbert",
    "load_visualbert",
    "load_vlbert",
    "read_paddle",
    "read_source",
    "read_weights",
    "recognize",
    "restore",
    "transfer_answers",
]


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
        load_bert(model.text, text)
    if image is not None:
        if not isinstance(model.image, ImageTower):
            raise ConfigError(
                f"{image}: the model has no ResNet to load it into; leave out the image weights."
            )
        load_resnet(model.image.resnet, image)
