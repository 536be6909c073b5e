"""VisualBERT's weights: uclanlp/visualbert, mmf's, Vilio's and Hugging Face's."""

from pathlib import Path

from torch import Tensor

from diptych.convert import forms
from diptych.convert.family import PRETRAINING, Family, Node, Parted, bert_sizes
from diptych.convert.heads import MATCHES
from diptych.convert.load import read_weights, split_prefix
from diptych.convert.rules import Drop, Keep, Table, bert_heads, bert_layer, bert_text, load_into, rename
from diptych.convert.settings import MEMES, NLVR2, Setting, Settings, Use
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
        "readout": _readout(file),
        # Vilio's prefix; the weights of the others were trained with 0
        "region_segment": int(file.prefix == VILIO),
    }


def _readout(file: Parted) -> str:
    """More than three classes are answers, whose head reads the token before the last."""
    if "layer_weights" in file.backbone:
        return "layer_average"
    outputs = max((len(file.rest[name]) for name in LAST if name in file.rest), default=0)
    return "before_end" if outputs > 3 and file.prefix != VILIO else "first"


def _processor(use: Use) -> Settings:
    who = "Vilio's hm.py" if use.prefix == VILIO else "uclanlp's and mmf's program"
    settings = {
        "max_tokens": Setting(128, f"the original: {who} cuts every text to 128"),
        "max_regions": Setting(100, "the original: files of Vilio and mmf hold at most 100 regions"),
    }
    if use.prefix in (VILIO, MMF):
        return settings
    if use.kind == "Answer":
        settings["text_end"] = Setting("? [MASK]", "the original: uclanlp's questions end so")
    if use.kind == "Classify":
        settings["max_regions"] = Setting(144, "the original: uclanlp's limit for NLVR2")
    return settings


def _benchmark(use: Use) -> tuple[str, str] | None:
    if use.prefix == VILIO:
        return MEMES, "the file: Vilio's prefix model."
    if use.pairs == 2:
        return NLVR2, "the file: a head over two pairs"
    if use.prefix == MMF:
        return MEMES, "assumed: of mmf's heads over one pair, that of Hateful Memes has two classes"
    return (NLVR2, "assumed: of uclanlp's heads, that of NLVR2 has two classes") if use.head else None


VILIO, MMF = "model.", "model.bert."  # prefixes of names
LAST = ("classifier.weight", "classifier.1.weight", "cls.weight")


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
    processor=_processor,
    benchmark=_benchmark,
    habits={
        "region_segment": "the original: Vilio, with its prefix model., gives regions segment 1, others 0",
        "readout": "the file: layer_weights are Vilio's --reg; heads of answers read a later token",
    },
)
