"""VL-BERT: jackroos/VL-BERT, MM-BERT (phaedonmit/VL-BERT), and BERT as a start."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diptych.convert import heads
from diptych.convert.family import Family, Layout, Node, count, heads_of
from diptych.convert.load import read_weights
from diptych.convert.rules import (
    Drop,
    Keep,
    Rule,
    Table,
    Weights,
    bert_layer,
    load_into,
    masked_words,
    rename,
)
from diptych.convert.settings import Setting, Settings, Use
from diptych.convert.split import Backbone, Split
from diptych.models.vlbert import VlBert


def _vector(source: str, target: str) -> Rule:
    """Rule for an embedding of one row, which is a vector here."""
    return Rule((source,), (target,), lambda tables: (tables[0][0],), lambda rows: (rows[0][None],))


VLBERT: Table = (
    rename("vlbert.word_embeddings", "embedding.words"),
    rename("vlbert.position_embeddings", "embedding.positions"),
    rename("vlbert.token_type_embeddings", "embedding.segments"),
    rename("vlbert.embedding_LayerNorm", "embedding.norm"),
    _vector("vlbert.end_embedding.weight", "embedding.end"),
    rename("vlbert.visual_ln_text", "embedding.text_visual.norm"),
    rename("vlbert.visual_ln_object", "embedding.region_visual.norm"),
    rename("vlbert.visual_scale_text", "embedding.text_visual.scale"),
    rename("vlbert.visual_scale_object", "embedding.region_visual.scale"),
    rename("vlbert.visual_1x1_text", "embedding.text_visual.project"),
    rename("vlbert.visual_1x1_object", "embedding.region_visual.project"),
    *bert_layer("vlbert.encoder.layer.{}", "encoder.layers.{}"),
    rename("vlbert.pooler.dense", "pool.dense"),
    rename("image_feature_extractor.obj_downsample.1", "regions.project"),
    _vector("object_linguistic_embeddings.weight", "region_word"),
    _vector("object_mask_visual_embedding.weight", "regions.hidden"),
    _vector("object_mask_word_embedding.weight", "hidden_word"),
    _vector("aux_text_visual_embedding.weight", "blank"),
    Keep("pool", "the published files come from pre-training, which has no pooler"),
    Keep("regions.hidden", "most tasks hide no regions"),
    Keep("hidden_word", "most tasks hide no regions"),
    Keep("blank", "most tasks have no examples without regions"),
)
BERT: Table = (
    rename("embeddings.word_embeddings", "embedding.words"),
    rename("embeddings.position_embeddings", "embedding.positions"),
    rename("embeddings.token_type_embeddings", "embedding.segments"),
    rename("embeddings.LayerNorm", "embedding.norm"),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that older versions of BERT saved"),
    *(
        Keep(name, "BERT has no visual parts")
        for name in ("regions", "region_word", "hidden_word", "blank", "embedding.end")
    ),
    Keep("embedding.text_visual", "BERT has no visual parts"),
    Keep("embedding.region_visual", "BERT has no visual parts"),
)
# `relationsip` is the original's spelling.
VLBERT_PRETRAIN: Table = (  # objectives: words, regions, matching
    *masked_words("vlbert.mlm_head.predictions", "objectives.words.head"),
    rename("vlbert.mvrc_head.transform.dense", "objectives.regions.transform.0"),
    rename("vlbert.mvrc_head.region_cls_pred", "objectives.regions.predict.classes.decoder"),
    rename("vlbert.relationsip_head.caption_image_relationship", "objectives.matching.head.layers.0"),
)
SEGMENTS, BLANK = "embeddings.token_type_embeddings.weight", "aux_text_visual_embedding."
HEAD_PREFIXES = tuple(
    f"vlbert.{name}_head." for name in ("mlm", "mvrc", "relationsip", "MLT")
)  # their spelling
OUTSIDE = (
    "image_feature_extractor.obj_downsample.",
    "object_linguistic_embeddings.",
    BLANK,
)
HIDDEN = ("object_mask_visual_embedding.", "object_mask_word_embedding.")
SEEING = (  # names that MM-BERT takes from VL-BERT, after it has started from a multilingual BERT
    *OUTSIDE,
    HIDDEN[1],
    *(f"vlbert.{name}" for name in ("visual_", "end_", "position_", "token_type_")),
)
BERT_WORDS = "cls.predictions."  # BERT's head of masked words
SPEAKING: Table = tuple(
    Keep(name, "comes from the multilingual BERT")
    for name in ("embedding.words", "embedding.norm", "encoder", "regions.hidden")
)


def load_mmbert(model: VlBert, *, bert: Path | str, vlbert: Path | str) -> dict[str, Tensor]:
    """Fill a model as MM-BERT does (`hybrid`): words and layers of a multilingual BERT, the rest of VL-BERT.

    Positions and segments come from VL-BERT, too; of the heads, that of regions from VL-BERT, that of words
    from BERT.

    Args:
        bert: weights of a multilingual BERT.
        vlbert: weights of a VL-BERT.

    Returns:
        The weights of these heads, under the names of VL-BERT.

    Raises:
        FormatError: a file is not a weight file.
        CheckpointMismatch: a file has weights of another family, or of other sizes.
    """
    split = FROM_BERT.split(read_weights(bert), where=bert)
    others = FROM_BERT.fill(model, split, where=bert)
    # The second file overwrites positions and segments, so the order of the two matters.
    split = _adapt(model, FAMILY.split(read_weights(vlbert), where=vlbert))
    seeing = {name: tensor for name, tensor in split.backbone.items() if name.startswith(SEEING)}
    load_into(model, seeing, (*VLBERT, *SPEAKING), where=vlbert)
    regions = {name: one for name, one in split.heads.items() if name.startswith("vlbert.mvrc_head.")}
    words = {
        name.removeprefix(BERT_WORDS): one for name, one in others.items() if name.startswith(BERT_WORDS)
    }
    return regions | {f"vlbert.mlm_head.predictions.{name}": one for name, one in words.items()}


def _adapt(model: VlBert, split: Split) -> Split:
    """Move the pooler to the heads if the model has none, and drop the vector of blank rows likewise."""
    if model.pool is None:
        split = split.moved(("vlbert.pooler.",))
    if model.blank is None:  # the model uses zeros for a row without regions
        backbone = {name: tensor for name, tensor in split.backbone.items() if name != f"{BLANK}weight"}
        split = replace(split, backbone=backbone)
    return split


def _adapt_bert(model: VlBert, split: Split) -> Split:
    """Extend BERT's two segments by the model's third one, that of regions, which stays new."""
    if model.pool is None:
        split = split.moved(("pooler.",))
    if SEGMENTS not in split.backbone:
        return split
    known = split.backbone[SEGMENTS]
    # Not a Keep: the table of segments is one tensor, filled in part.
    segments = torch.cat([known, model.embedding.segments.weight.detach()[len(known) :]])
    return replace(split, backbone={**split.backbone, SEGMENTS: segments})


FROM_BERT = Layout(table=BERT, adapt=_adapt_bert)


def _sizes(file: Split) -> Node:
    weights = file.backbone
    words = weights["vlbert.word_embeddings.weight"]
    visual, width = weights["image_feature_extractor.obj_downsample.1.weight"].shape
    hidden = weights.get("object_mask_visual_embedding.weight")
    # The matrix reads features and an encoding of the box. The vector of hidden regions has the width of the
    # features; files without it have the published 2048 numbers per box.
    boxes = 2048 if hidden is None else width - hidden.shape[1]
    roberta = len(words) == 50265  # whose first position is 2, after that of padding
    return {
        "vocab_size": len(words),
        "feature_dim": width - boxes,
        "box_dim": boxes,
        "dim": words.shape[1],
        "visual_dim": visual,
        "heads": heads_of(words.shape[1]),
        "hidden": len(weights["vlbert.encoder.layer.0.intermediate.dense.weight"]),
        "layers": count(weights, "vlbert.encoder.layer.{}."),
        "max_positions": len(weights["vlbert.position_embeddings.weight"]),
        "first_position": 2 if roberta else 0,
        "visual_norm": "vlbert.visual_ln_text.weight" in weights,
        "learned_blank": "aux_text_visual_embedding.weight" in weights,
        # Heads of questions read the mask before the end; their files have no pooler.
        "readout": "before_end" if _asks(file) else "first",
    }


def _asks(file: Split) -> bool:
    head = any(name.startswith("final_mlp.") for name in file.heads)
    return head and "vlbert.pooler.dense.weight" not in file.backbone


def _processor(use: Use) -> Settings:
    sizes = use.found.sizes
    longest = 1200 if use.kind == "Choose" else 1000  # the configs of VCR have 1200
    settings = {
        "clip_boxes": Setting(
            [600, longest],
            "the original: boxes are clipped to the last pixel of the resized picture",
        )
    }
    if sizes["readout"] == "before_end":
        settings |= {
            "text_b": Setting("[MASK]", "the original: answers are read at a mask after the question"),
            "max_tokens": Setting(None, "the original: VL-BERT never truncates a question"),
            "max_regions": Setting(100, "the original: its files have at most 100 regions"),
        }
    if sizes["vocab_size"] == MULTILINGUAL:
        why = "the original: MM-BERT lowercases texts and strips accents, although its vocabulary is cased"
        settings["lowercase"] = Setting(True, why)
    return settings


MULTILINGUAL = 119547  # tokens of BERT's multilingual cased vocabulary


def _matching(weights: Weights) -> Node:
    # VL-BERT has two classes, MM-BERT one score.
    count = len(weights["vlbert.relationsip_head.caption_image_relationship.bias"])
    return heads.objective("Matching", classes=count)


def _related(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A head of matching; that of MM-BERT has one score."""
    single = ({"_target_": "diptych.tasks.Match"}, 0)
    return single if outputs == 1 else heads.matching(matches=1)(outputs, pairs)


# `final_mlp` is the head of every task of the original. The numbers of its members tell the tasks apart.


ANSWERS: Table = heads.transformed("final_mlp", last=2)
SMALL_ANSWERS: Table = (
    rename("final_mlp.1", f"{heads.LAYERS}.0"),
    rename("final_mlp.4", f"{heads.LAYERS}.2"),
)
CHOICES: Table = heads.linear("final_mlp.1")
GROUNDING: Table = (
    rename("final_mlp.0.dense", f"{heads.LAYERS}.0"),
    rename("final_mlp.2", f"{heads.LAYERS}.2"),
)
FAMILY = Family(
    name="vlbert",
    title="VL-BERT or MM-BERT (jackroos/VL-BERT, phaedonmit/VL-BERT)",
    model=VlBert,
    table=VLBERT,
    sizes=_sizes,
    adapt=_adapt,
    backbone=Backbone(
        key="word_embeddings.weight",
        root="vlbert.",
        extra_prefixes=(*OUTSIDE, *HIDDEN),
        head_prefixes=HEAD_PREFIXES,
    ),
    starts=(FROM_BERT,),
    required=frozenset(
        {
            "vlbert.encoder.layer.0.attention.self.query.weight",
            "image_feature_extractor.obj_downsample.1.weight",
        }
    ),
    heads=(
        heads.linears(
            "final_mlp", ANSWERS, ["final_mlp.0.dense.weight", "final_mlp.2.weight"], heads.answers
        ),
        heads.linears(
            "final_mlp",
            GROUNDING,
            ["final_mlp.0.dense.weight", "final_mlp.2.weight"],
            heads.grounding,
            norm=False,
        ),
        heads.linears(
            "final_mlp",
            SMALL_ANSWERS,
            ["final_mlp.1.weight", "final_mlp.4.weight"],
            heads.answers,
            norm=False,
            relu=lambda _: True,
        ),
        # After the heads with `final_mlp.4`, which have a `final_mlp.1`, too.
        heads.linears("final_mlp", CHOICES, ["final_mlp.1.weight"], heads.choices),
        heads.pretraining(
            VLBERT_PRETRAIN,
            matching=("vlbert.relationsip_head.caption_image_relationship.bias", _matching),
            words=heads.masked_text("vlbert.mlm_head.predictions.transform.dense.bias"),
            regions=heads.region_classes(
                "vlbert.mvrc_head.region_cls_pred.bias", loss="cross_entropy", norm=False
            ),
        ),
        *heads.layouts("vlbert.MLT_head.MLT_cls_pred", heads.answers),
        *heads.layouts("vlbert.relationsip_head.caption_image_relationship", _related),
    ),
    builders={(768, 12): "vlbert_base", (1024, 24): "vlbert_large"},
    drops=(
        Drop("vlbert.mlm_head", "the head of masked words: pre-training"),
        Drop("vlbert.mvrc_head", "the head of hidden regions: pre-training"),
        Drop("vlbert.relationsip_head", "the head of matching pairs: pre-training"),
        Drop("cnn_loss_reg", "the head of a second loss of end-to-end training"),
        # Not lost: `fill_model` gives these tensors to the image network if the model has one.
        Drop("image_feature_extractor", "the image network of end-to-end files"),
    ),
    processor=_processor,
    places=2,  # all regions share one position, and END has another one
    habits={
        "readout": "the file: a head called final_mlp without a pooler answers questions",
        "box_dim": "the file: its vector of hidden regions; without it, 2048 as published",
        "feature_dim": "the file: the width of the matrix without box_dim",
    },
)
