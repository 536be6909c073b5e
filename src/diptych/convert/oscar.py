"""Oscar: microsoft/Oscar, Oscar+ (VinVL), and Vilio's O."""

from dataclasses import replace

from diptych.convert import heads
from diptych.convert.family import PRETRAINING, Family, Node, bert_sizes
from diptych.convert.rules import Drop, Table, Weights, bert_heads, bert_layer, bert_text, rename
from diptych.convert.settings import MEMES, NLVR2, VILIO_SETTINGS, Benchmark, Setting, Settings, Use
from diptych.convert.split import Split
from diptych.models.oscar import Oscar

OSCAR: Table = (
    *bert_text("embeddings", "text"),
    rename("img_embedding", "regions.project"),
    rename("LayerNorm", "regions.norm"),  # Oscar+ only; a member of the model, not of its embeddings
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that Vilio's version saved"),
)
OSCAR_PRETRAIN: Table = bert_heads()  # objectives: words, matching


def _adapt(model: Oscar, split: Split) -> Split:
    """For a model that reads 4 numbers per box, drop the columns of width and height, as Vilio does."""
    name, width = "img_embedding.weight", model.regions.project.in_features
    matrix = split.backbone.get(name)
    if matrix is None or model.regions.box_numbers != 4 or matrix.shape[-1] != width + 2:
        return split
    return replace(split, backbone={**split.backbone, name: matrix[:, :width]})


def _sizes(file: Split) -> Node:
    weights = file.backbone
    width = weights["img_embedding.weight"].shape[1]
    # Published widths: 2054 = 2048 + 6 of the original, 2052 = 2048 + 4 of Vilio.
    numbers = 4 if width % 8 == 4 else 6  # of a box; the width of the features is a multiple of 8
    return bert_sizes(weights) | {
        "feature_dim": width - numbers,
        "box_numbers": numbers,
        "region_norm": "LayerNorm.weight" in weights,
    }


def _contrast(weights: Weights) -> Node:
    # Three classes in Oscar+, which tells wrong captions from wrong tags; two in Oscar.
    return heads.objective("TagContrast", classes=len(weights["cls.seq_relationship.bias"]))


VILIO = "model."  # prefix of names in Vilio's files; the original has `bert.`
# Limits of tokens and regions in the commands of the original repository, by task.
LIMITS = {
    "its pre-training": (35, 50),
    "NLVR2": (55, 40),
    "retrieval": (70, 70),
    "VQA": (128, 50),
}


def _processor(use: Use) -> Settings:
    tags = use.found.sizes["box_numbers"] == 6
    names = "Oscar's second text is the names of the objects"
    settings = {
        "tags": Setting(
            tags, f"the original: {names}" if tags else "the file: four numbers per box, as Vilio has"
        )
    }
    if use.prefix == VILIO:
        return settings | VILIO_SETTINGS
    kind = {"Pretrain": "its pre-training", "Answer": "VQA"}.get(use.kind)
    if use.head == "classifier" and use.kind == "Classify" and use.count == 2:
        kind = "NLVR2" if use.pairs == 2 else "retrieval"
    if kind is None:
        return settings
    tokens, regions = LIMITS[kind]
    # One head over a single pair may have been trained for several tasks.
    who = "the original" if use.pairs == 2 or use.kind == "Pretrain" else f"assumed to be {kind}"
    why = f"{who}: Oscar truncates texts of {kind} to {tokens} tokens and images to {regions} regions"
    return settings | {"max_tokens": Setting(tokens, why), "max_regions": Setting(regions, why)}


def _benchmark(use: Use) -> tuple[Benchmark, str] | None:
    if use.prefix == VILIO:
        return MEMES, "the file: Vilio's prefix model."
    return (NLVR2, "the file: a head over two pairs") if use.pairs == 2 else None


FAMILY = Family(
    name="oscar",
    title="Oscar or Oscar+ (microsoft/Oscar, Vilio's O)",
    model=Oscar,
    table=OSCAR,
    adapt=_adapt,
    sizes=_sizes,
    required=frozenset({"encoder.layer.0.attention.self.query.weight", "img_embedding.weight"}),
    builders={(768, 12): "oscar_base", (1024, 24): "oscar_large"},
    # The activation of a head: ReLU in the original, GELU in Vilio, whose prefix is `model.`.
    heads=(
        *heads.layouts("classifier", heads.classes, relu=lambda found: found.split.prefix == "bert."),
        heads.pretraining(
            OSCAR_PRETRAIN,
            matching=("cls.seq_relationship.bias", _contrast),
            words=heads.masked_text("cls.predictions.transform.dense.bias"),
        ),
        *heads.layouts("cls.seq_relationship", heads.matching(matches=0)),
    ),
    drops=PRETRAINING,
    processor=_processor,
    benchmark=_benchmark,
)
