"""VisualBERT's weights: uclanlp/visualbert, mmf's, Vilio's and Hugging Face's."""

from pathlib import Path

from torch import Tensor

from diptych.convert import forms
from diptych.convert.family import PRETRAINING, Family, Node, Parted, bert_sizes
from diptych.convert.heads import MATCHES
from diptych.convert.load import read_weights, split_prefix
from diptych.convert.rules import Drop, Keep, Table, bert_heads, bert_layer, bert_text, load_into, rename
from diptych.models.visualbert import VisualBert

VISUALBERT: Table = (
    *bert_text("embeddings", "text"),
    rename("embeddings.projection", "regions.feature"),
    rename("embeddings.token_type_embeddings_visual", "regions.segments"),
    rename("embeddings.position_embeddings_visual", "regions.positions"),
    rename("embeddings.visual_projection", "regions.feature"),  # these three are Hugging Face's names
    rename("embeddings.visual_token_type_embeddings", "regions.segments"),
    rename("embeddings.visual_position_embeddings", "regions.positions"),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    rename("layer_weights", "average.weights"),
    Keep("average.weights", "only what Vilio's V was fine-tuned to with --reg has them"),
    Drop("pooler", "the model reads another state than the pooled one"),
    Drop("embeddings.position_ids", "a counter that newer versions of BERT saved"),
)
FEATURE = ("embeddings.projection.weight", "embeddings.visual_projection.weight")
VISUALBERT_PRETRAIN: Table = bert_heads()  # objectives: words, matching


def load_visualbert(model: VisualBert, path: Path | str) -> dict[str, Tensor]:
    """Fill a VisualBERT and return, under their own names, the weights of heads, which belong to tasks.

    The pooler counts as a head where the model reads another state than the first token's.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is not VisualBERT's, or of other sizes.
    """
    return fill_visualbert(model, read_weights(path), where=path)


def fill_visualbert(model: VisualBert, weights: dict[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """As `load_visualbert`, from weights that have been read."""
    backbone, heads = split_prefix(weights, "embeddings.word_embeddings.weight", where=where)
    if model.pool is None:
        heads |= {name: backbone.pop(name) for name in list(backbone) if name.startswith("pooler.")}
    load_into(model, backbone, VISUALBERT, where=where)
    return heads


def _sizes(file: Parted) -> Node:
    weights = file.backbone
    return bert_sizes(weights) | {
        "feature_dim": next(weights[name].shape[1] for name in FEATURE if name in weights),
        "readout": "layer_average" if "layer_weights" in weights else "first",
        # Vilio's prefix; the weights of the others were trained with 0
        "region_segment": int(file.prefix == "model."),
    }


FAMILY = Family(
    name="visualbert",
    title="VisualBERT (uclanlp/visualbert, mmf, Hugging Face, Vilio's V)",
    model=VisualBert,
    fill=fill_visualbert,
    table=VISUALBERT,
    sizes=_sizes,
    marks=frozenset({"encoder.layer.0.attention.self.query.weight", "|".join(FEATURE)}),
    builders={(768, 12): "visualbert_base"},
    heads=(
        *forms.heads("classifier", forms.classes),
        *forms.heads("classifier", forms.choices),
        forms.pretraining(
            VISUALBERT_PRETRAIN,
            matching=("cls.seq_relationship.bias", lambda _: forms.objective("Matching")),
            words=forms.masked_text("cls.predictions.transform.dense.bias"),
        ),
        *forms.heads("cls", forms.classes),
        *forms.heads("cls", forms.choices),
        *forms.heads("cls.seq_relationship", forms.matching(MATCHES["visualbert"])),
    ),
    drops=PRETRAINING,
)
