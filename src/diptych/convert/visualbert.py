"""VisualBERT: uclanlp/visualbert, mmf, Vilio's V and Hugging Face."""

from diptych.convert import heads
from diptych.convert.family import PRETRAINING, Family, Node, bert_sizes
from diptych.convert.rules import Drop, Keep, Table, bert_heads, bert_layer, bert_text, rename
from diptych.convert.settings import MEMES, NLVR2, Benchmark, Setting, Settings, Use
from diptych.convert.split import Split
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
    # The Drop of `pooler` below gets it where the model has no pooler.
    rename("pooler.dense", "pool.dense"),
    rename("layer_weights", "average.weights"),
    Keep("average.weights", "only files that Vilio's V fine-tuned with --reg have them"),
    Drop("pooler", "the model reads another state than the pooled one"),
    Drop("embeddings.position_ids", "a counter that newer versions of BERT saved"),
)
FEATURE = ("embeddings.projection.weight", "embeddings.visual_projection.weight")
VISUALBERT_PRETRAIN: Table = bert_heads()  # objectives: words, matching


def _adapt(model: VisualBert, split: Split) -> Split:
    """Move the pooler to the heads if the model has none, because it reads another token than the first."""
    return split if model.pool is not None else split.moved(("pooler.",))


def _sizes(file: Split) -> Node:
    weights = file.backbone
    return bert_sizes(weights) | {
        "feature_dim": next(weights[name].shape[1] for name in FEATURE if name in weights),
        "readout": _readout(file),
        # Vilio gives regions segment 1; all other weights were trained with 0.
        "region_segment": int(file.prefix == VILIO),
    }


def _readout(file: Split) -> str:
    """Which token the head reads: for answers, which are more than three, the one before the last."""
    # Vilio's `--reg` averages the layers and leaves the pooler untrained.
    if "layer_weights" in file.backbone:
        return "layer_average"
    # The tensors do not show the token that is read, but only heads of answers have more than three outputs.
    outputs = max((len(file.heads[name]) for name in LAST if name in file.heads), default=0)
    return "before_end" if outputs > 3 and file.prefix != VILIO else "first"


def _processor(use: Use) -> Settings:
    who = "Vilio's hm.py" if use.prefix == VILIO else "uclanlp's and mmf's program"
    settings = {
        "max_tokens": Setting(128, f"the original: {who} truncates every text to 128 tokens"),
        "max_regions": Setting(100, "the original: files of Vilio and mmf have at most 100 regions"),
    }
    if use.prefix in (VILIO, MMF):
        return settings
    if use.kind == "Answer":
        settings["text_end"] = Setting("? [MASK]", "the original: uclanlp's end of every question")
    if use.kind == "Classify":
        settings["max_regions"] = Setting(144, "the original: uclanlp's limit for NLVR2")
    return settings


def _benchmark(use: Use) -> tuple[Benchmark, str] | None:
    if use.prefix == VILIO:
        return MEMES, "the file: Vilio's prefix model."
    if use.pairs == 2:
        return NLVR2, "the file: a head over two pairs"
    if use.prefix == MMF:
        return MEMES, "assumed: of mmf's heads over one pair, only that of Hateful Memes has two classes"
    return (NLVR2, "assumed: of uclanlp's heads, only that of NLVR2 has two classes") if use.head else None


VILIO, MMF = "model.", "model.bert."  # prefixes of names in their files
LAST = ("classifier.weight", "classifier.1.weight", "cls.weight")


FAMILY = Family(
    name="visualbert",
    title="VisualBERT (uclanlp/visualbert, mmf, Hugging Face, Vilio's V)",
    model=VisualBert,
    table=VISUALBERT,
    adapt=_adapt,
    sizes=_sizes,
    required=frozenset({"encoder.layer.0.attention.self.query.weight", "|".join(FEATURE)}),
    builders={(768, 12): "visualbert_base"},
    heads=(
        *heads.layouts("classifier", heads.classes),
        *heads.layouts("classifier", heads.choices),
        heads.pretraining(
            VISUALBERT_PRETRAIN,
            matching=("cls.seq_relationship.bias", lambda _: heads.objective("Matching")),
            words=heads.masked_text("cls.predictions.transform.dense.bias"),
        ),
        *heads.layouts("cls", heads.classes),
        *heads.layouts("cls", heads.choices),
        *heads.layouts("cls.seq_relationship", heads.matching(matches=1)),
    ),
    drops=PRETRAINING,
    processor=_processor,
    benchmark=_benchmark,
    habits={
        "region_segment": "the original: Vilio (prefix model.) gives regions segment 1, all others 0",
        "readout": "the file: layer_weights come from Vilio's --reg; heads of answers read a later token",
    },
)
