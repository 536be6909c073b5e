"""Oscar's weights: microsoft/Oscar, Oscar+ (VinVL), and Vilio's."""

from pathlib import Path

from torch import Tensor

from diptych.convert.load import read_weights, split_prefix
from diptych.convert.rules import Drop, Table, bert_heads, bert_layer, bert_text, load_into, rename
from diptych.models.oscar import Oscar

OSCAR: Table = (
    *bert_text("embeddings", "text"),
    rename("img_embedding", "regions.project"),
    rename("LayerNorm", "regions.norm"),  # Oscar+ only; it lies beside the embeddings, not in them
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that Vilio's version saved"),
)
OSCAR_PRETRAIN: Table = bert_heads()  # objectives: words, matching


def load_oscar(model: Oscar, path: Path | str) -> dict[str, Tensor]:
    """Fill an Oscar and return, under their own names, the weights of heads, which belong to tasks.

    A model that reads 4 numbers of a box takes a file for 6 too: width and height are cut off, as Vilio does.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is not Oscar's, or of other sizes.
    """
    return fill_oscar(model, read_weights(path), where=path)


def fill_oscar(model: Oscar, weights: dict[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """As `load_oscar`, from weights that have been read."""
    backbone, heads = split_prefix(weights, "embeddings.word_embeddings.weight", where=where)
    name, width = "img_embedding.weight", model.regions.project.in_features
    if model.regions.box_numbers == 4 and name in backbone and backbone[name].shape[-1] == width + 2:
        backbone[name] = backbone[name][:, :width]
    load_into(model, backbone, OSCAR, where=where)
    return heads
