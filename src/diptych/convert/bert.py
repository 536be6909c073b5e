"""BERT: the weights that Hugging Face publishes, for a text tower."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from diptych.convert.family import Family, Layout, Node, bert_sizes
from diptych.convert.load import read_weights
from diptych.convert.rules import Drop, Keep, Table, below, bert_layer, bert_text, rename
from diptych.convert.split import Split
from diptych.models.concat import BertTower, Concat

BERT: Table = (
    *bert_text("embeddings", "text"),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that older versions of BERT saved"),
    Drop("cls", "heads of pre-training"),
    Drop("classifier", "the head of another task"),
    Keep("project", "the tower's own layer on top of BERT"),
)


def load_bert(tower: BertTower, path: Path | str) -> None:
    """Fill the BERT in a text tower. The projection of the tower is not changed.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the weights are not BERT's, or have other sizes.
    """
    fill_bert(tower, read_weights(path), where=path)


def fill_bert(tower: BertTower, weights: Mapping[str, Tensor], *, where: object) -> None:
    """Same as `load_bert`, with weights that have been read."""
    if tower.pool is None:  # a tower that averages states has no place for the pooler of the first token
        weights = {name: one for name, one in weights.items() if "pooler.dense." not in name}
    TOWER.fill(tower, TOWER.split(weights, where=where), where=where)


def _whole(model: object, split: Split) -> Split:
    """Put the heads back among the backbone: the table itself drops them."""
    return replace(split, backbone={**split.backbone, **split.heads}, heads={})


# A tower takes any file with a BERT in it; heads are of no use to it, whatever they are called.
TOWER = Layout(table=BERT, adapt=_whole)
WHOLE: Table = (
    *below(BERT, "text"),
    Keep("text.pool", "files that have only the head of masked words have no pooler"),
)


def _sizes(file: Split) -> Node:
    sizes = bert_sizes(file.backbone)
    sizes.pop("segments")  # `BertTower` has no such argument: BERT always has 2
    tower = {"_target_": "diptych.models.concat.BertTower", "dim": 128, "width": sizes.pop("dim"), **sizes}
    return {"text": tower, "image": None}


FAMILY = Family(
    name="bert",
    title="BERT (Hugging Face), which reads text only",
    model=Concat,
    table=WHOLE,
    adapt=_whole,
    sizes=_sizes,
    # Families with a BERT inside require this name and more; `recognize` prefers the more specific one.
    required=frozenset({"encoder.layer.0.attention.self.query.weight"}),
    builders={},
    drops=tuple(line for line in BERT if isinstance(line, Drop)),
    regions=False,
)
