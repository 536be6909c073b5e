"""UNITER's weights: ChenRocks/UNITER, and what nav13n and Vilio saved of it."""

from pathlib import Path

from torch import Tensor

from diptych.convert.family import PRETRAINING, Family, Node, Parted, bert_sizes, classifier
from diptych.convert.load import read_weights, split_prefix
from diptych.convert.rules import Drop, Keep, Table, Weights, bert_layer, bert_text, load_into, rename, row
from diptych.models.uniter import Uniter

UNITER: Table = (
    *bert_text("embeddings", "text"),
    rename("img_embeddings.img_linear", "regions.feature"),
    rename("img_embeddings.img_layer_norm", "regions.feature_norm"),
    rename("img_embeddings.pos_linear", "regions.box"),
    rename("img_embeddings.pos_layer_norm", "regions.box_norm"),
    rename("img_embeddings.LayerNorm", "regions.norm"),
    row("img_embeddings.mask_embedding.weight", "regions.hidden", index=1, rows=2),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that Vilio's version saved"),
    Keep("regions.hidden", "Vilio's UNITER hides no regions and has no vector for them"),
)
PAIRED = ("attn1", "attn2", "attn_pool", "fc", "nlvr2_output")


def load_uniter(model: Uniter, path: Path | str) -> dict[str, Tensor]:
    """Fill a UNITER and return, under their own names, the weights of heads, which belong to tasks.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is not UNITER's, or of other sizes.
    """
    return fill_uniter(model, read_weights(path), where=path)


def fill_uniter(model: Uniter, weights: dict[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """As `load_uniter`, from weights that have been read."""
    backbone, heads = split_prefix(weights, "embeddings.word_embeddings.weight", where=where)
    load_into(model, backbone, UNITER, where=where)
    return heads


def _sizes(weights: Weights, prefix: str) -> Node:
    return bert_sizes(weights) | {"feature_dim": weights["img_embeddings.img_linear.weight"].shape[1]}


def _pooled(file: Parted) -> bool:
    """Whether the NLVR2 head reads pooled vectors; that of paired attention reads states."""
    return not any(name.startswith("attn1.") for name in file.rest)


FAMILY = Family(
    name="uniter",
    title="UNITER (ChenRocks/UNITER, nav13n, Vilio's U)",
    model=Uniter,
    fill=fill_uniter,
    table=UNITER,
    sizes=_sizes,
    marks=frozenset({"encoder.layer.0.attention.self.query.weight", "img_embeddings.img_linear.weight"}),
    builders={(768, 12): "uniter_base", (1024, 24): "uniter_large"},
    heads=(*classifier("classifier"), *classifier("linear"), *classifier("nlvr2_output", when=_pooled)),
    drops=(
        *PRETRAINING,
        Drop("feat_regress", "the head of hidden regions' features: pre-training"),
        Drop("region_classifier", "the head of hidden regions' classes: pre-training"),
        Drop("itm_output", "the head of matching pairs: pre-training"),
        Drop("rank_output", "the head of retrieval has no task yet"),
        Drop("vqa_output", "the head of answers has no task yet"),
        Drop("vcr_output", "the head of choices has no task yet"),
        Drop("re_output", "the head of grounding has no task yet"),
        *(Drop(part, "the head of paired attention has no task yet") for part in PAIRED),
    ),
)
