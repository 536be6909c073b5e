"""BERT's weights, as Hugging Face publishes them, into a text tower."""

from pathlib import Path

from torch import Tensor

from diptych.convert.family import Family, Node, Parted, bert_sizes
from diptych.convert.load import read_weights, split_prefix
from diptych.convert.rules import Drop, Keep, Table, below, bert_layer, bert_text, load_into, rename
from diptych.models.concat import BertTower, Concat

BERT: Table = (
    *bert_text("embeddings", "text"),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that older versions saved"),
    Drop("cls", "heads of pre-training"),
    Drop("classifier", "the head of another task"),
    Keep("project", "the tower's own layer on top of BERT"),
)


def load_bert(tower: BertTower, path: Path | str) -> None:
    """Fill the BERT inside a text tower; its projection stays as it is.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is not BERT's, or of other sizes.
    """
    fill_bert(tower, read_weights(path), where=path)


def fill_bert(tower: BertTower, weights: dict[str, Tensor], *, where: object) -> None:
    """As `load_bert`, from weights that have been read."""
    backbone, heads = split_prefix(weights, "embeddings.word_embeddings.weight", where=where)
    load_into(tower, backbone | heads, BERT, where=where)


WHOLE: Table = (
    *below(BERT, "text"),
    Keep("text.pool", "files with the head of masked words alone have no pooler"),
)


def _fill_model(model: Concat, weights: dict[str, Tensor], *, where: object) -> None:
    backbone, heads = split_prefix(weights, "embeddings.word_embeddings.weight", where=where)
    load_into(model, backbone | heads, WHOLE, where=where)


def _sizes(file: Parted) -> Node:
    sizes = bert_sizes(file.backbone)
    sizes.pop("segments")  # BERT has 2
    tower = {"_target_": "diptych.models.concat.BertTower", "dim": 128, "width": sizes.pop("dim"), **sizes}
    return {"text": tower, "image": None}


FAMILY = Family(
    name="bert",
    title="BERT (Hugging Face), which reads texts alone",
    model=Concat,
    fill=_fill_model,
    table=WHOLE,
    sizes=_sizes,
    marks=frozenset({"encoder.layer.0.attention.self.query.weight"}),
    builders={},
    drops=tuple(line for line in BERT if isinstance(line, Drop)),
    regions=False,
)
