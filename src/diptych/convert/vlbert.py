"""VL-BERT's weights: jackroos/VL-BERT, MM-BERT (phaedonmit/VL-BERT), and BERT's as a start."""

from pathlib import Path

import torch
from torch import Tensor

from diptych.convert import forms, heads
from diptych.convert.family import Family, Node, Parted, count, heads_of
from diptych.convert.load import read_weights, split_prefix
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
from diptych.models.vlbert import VlBert


def _vector(source: str, target: str) -> Rule:
    """An embedding of one row, which is a vector here."""
    return Rule((source,), (target,), lambda one: (one[0][0],), lambda one: (one[0][None],))


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
    Keep("pool", "the published files come from pre-training without a pooler"),
    Keep("regions.hidden", "files of most tasks hide no regions"),
    Keep("hidden_word", "files of most tasks hide no regions"),
    Keep("blank", "files of most tasks see no row without regions"),
)
BERT: Table = (
    rename("embeddings.word_embeddings", "embedding.words"),
    rename("embeddings.position_embeddings", "embedding.positions"),
    rename("embeddings.token_type_embeddings", "embedding.segments"),
    rename("embeddings.LayerNorm", "embedding.norm"),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that older versions saved"),
    *(
        Keep(name, "BERT sees nothing")
        for name in ("regions", "region_word", "hidden_word", "blank", "embedding.end")
    ),
    Keep("embedding.text_visual", "BERT sees nothing"),
    Keep("embedding.region_visual", "BERT sees nothing"),
)
VLBERT_PRETRAIN: Table = (  # objectives: words, regions, matching
    *masked_words("vlbert.mlm_head.predictions", "objectives.words.head"),
    rename("vlbert.mvrc_head.transform.dense", "objectives.regions.transform.0"),
    rename("vlbert.mvrc_head.region_cls_pred", "objectives.regions.predict.classes.decoder"),
    rename("vlbert.relationsip_head.caption_image_relationship", "objectives.matching.head.layers.0"),
)
SEGMENTS, POOLER = "embeddings.token_type_embeddings.weight", "vlbert.pooler."
HEADS = tuple(f"vlbert.{name}_head." for name in ("mlm", "mvrc", "relationsip", "MLT"))  # their spelling
OUTSIDE = (
    "image_feature_extractor.obj_downsample.",
    "object_linguistic_embeddings.",
    "aux_text_visual_embedding.",
)
HIDDEN = ("object_mask_visual_embedding.", "object_mask_word_embedding.")
SEEING = (  # what MM-BERT takes of VL-BERT once it has started from a multilingual BERT
    *OUTSIDE,
    HIDDEN[1],
    *(f"vlbert.{name}" for name in ("visual_", "end_", "position_", "token_type_")),
)
SPEAKING: Table = tuple(
    Keep(name, "comes from the multilingual BERT")
    for name in ("embedding.words", "embedding.norm", "encoder", "regions.hidden")
)


def load_vlbert(model: VlBert, path: Path | str) -> dict[str, Tensor]:
    """Fill a VL-BERT and return, as `vlbert.*` or under their own names, all that belongs to tasks.

    That is heads, the image network of end-to-end files, and a pooler where the model reads another state.
    Of a BERT, which the original starts from, what sees stays new, as does the segment of regions.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is neither VL-BERT's nor BERT's, or of other sizes.
    """
    return fill_vlbert(model, read_weights(path), where=path)


def fill_vlbert(model: VlBert, weights: dict[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """As `load_vlbert`, from weights that have been read."""
    if any(name.endswith(SEGMENTS) for name in weights):
        return _fill_from_bert(model, weights, where=where)
    own, heads = _part(model, weights, where=where)
    load_into(model, own, VLBERT, where=where)
    return heads


def load_mmbert(model: VlBert, *, bert: Path | str, vlbert: Path | str) -> dict[str, Tensor]:
    """Start as MM-BERT does (`hybrid`): a multilingual BERT that sees as VL-BERT has learned to.

    Positions and segments come from VL-BERT. Returns what `load_vlbert` returns of both files.

    Raises:
        FormatError: a file is not a weight file.
        CheckpointMismatch: `bert` is not BERT's, `vlbert` not VL-BERT's, or one is of other sizes.
    """
    heads = _fill_from_bert(model, read_weights(bert), where=bert)
    own, others = _part(model, read_weights(vlbert), where=vlbert)
    seeing = {name: one for name, one in own.items() if name.startswith(SEEING)}
    load_into(model, seeing, (*VLBERT, *SPEAKING), where=vlbert)
    return others | heads


def _part(
    model: VlBert, weights: dict[str, Tensor], *, where: object
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the model takes, below `vlbert.` whatever the prefix was, and the rest."""
    backbone, others = split_prefix(weights, "word_embeddings.weight", where=where)
    own = {f"vlbert.{name}": one for name, one in backbone.items()}
    own |= {name: others.pop(name) for name in list(others) if name.startswith((*OUTSIDE, *HIDDEN))}
    heads = (*HEADS, POOLER) if model.pool is None else HEADS
    others |= {name: own.pop(name) for name in list(own) if name.startswith(heads)}
    if model.blank is None:  # trained with zeros
        own.pop("aux_text_visual_embedding.weight", None)
    return own, others


def _fill_from_bert(model: VlBert, weights: dict[str, Tensor], *, where: object) -> dict[str, Tensor]:
    own, heads = split_prefix(weights, "embeddings.word_embeddings.weight", where=where)
    if model.pool is None:
        heads |= {name: own.pop(name) for name in list(own) if name.startswith("pooler.")}
    if SEGMENTS in own:  # BERT has no segment of regions
        known = own[SEGMENTS]
        own[SEGMENTS] = torch.cat([known, model.embedding.segments.weight.detach()[len(known) :]])
    load_into(model, own, BERT, where=where)
    return heads


def _sizes(file: Parted) -> Node:
    weights = file.backbone
    words = weights["vlbert.word_embeddings.weight"]
    visual, width = weights["image_feature_extractor.obj_downsample.1.weight"].shape
    hidden = weights.get("object_mask_visual_embedding.weight")
    boxes = 2048 if hidden is None else width - hidden.shape[1]  # published with 2048 numbers of a box
    roberta = len(words) == 50265
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
        # heads of questions read the mask before the end, and their files have no pooler
        "readout": "before_end" if _asks(file) else "first",
    }


def _asks(file: Parted) -> bool:
    head = any(name.startswith("final_mlp.") for name in file.rest)
    return head and "vlbert.pooler.dense.weight" not in file.backbone


def _processor(use: Use) -> Settings:
    sizes = use.found.sizes
    longest = 1200 if use.kind == "Choose" else 1000
    settings = {
        "clip_boxes": Setting(
            [600, longest],
            "the original: boxes end at the last pixel of the resized picture, features precomputed or not",
        )
    }
    if sizes["readout"] == "before_end":
        settings |= {
            "text_b": Setting("[MASK]", "the original: answers are read at a mask after the question"),
            "max_tokens": Setting(None, "the original: VL-BERT never cuts a question"),
            "max_regions": Setting(100, "the original: its files hold at most 100 regions"),
        }
    if sizes["vocab_size"] == MULTILINGUAL:
        why = "the original: MM-BERT lowers texts and strips accents although its vocabulary is cased"
        settings["lowercase"] = Setting(True, why)
    return settings


MULTILINGUAL = 119547  # tokens of BERT's multilingual cased vocabulary


def _matching(weights: Weights) -> Node:
    count = len(weights["vlbert.relationsip_head.caption_image_relationship.bias"])
    return forms.objective("Matching", classes=count)


def _related(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """MM-BERT has one score."""
    one = ({"_target_": "diptych.tasks.Match"}, 0)
    return one if outputs == 1 else forms.matching(heads.MATCHES["vlbert"])(outputs, pairs)


TABLES = heads.HEADS["vlbert"]
FAMILY = Family(
    name="vlbert",
    title="VL-BERT or MM-BERT (jackroos/VL-BERT, phaedonmit/VL-BERT)",
    model=VlBert,
    fill=fill_vlbert,
    table=VLBERT,
    sizes=_sizes,
    anchor="word_embeddings.weight",
    inner="vlbert.",
    beside=(*OUTSIDE, *HIDDEN),
    within=HEADS,
    marks=frozenset(
        {
            "vlbert.encoder.layer.0.attention.self.query.weight",
            "image_feature_extractor.obj_downsample.1.weight",
        }
    ),
    heads=(
        forms.linears(
            "final_mlp", TABLES["vqa"], ["final_mlp.0.dense.weight", "final_mlp.2.weight"], forms.answers
        ),
        forms.linears(
            "final_mlp",
            TABLES["refcoco_plus"],
            ["final_mlp.0.dense.weight", "final_mlp.2.weight"],
            forms.grounding,
            norm=False,
        ),
        forms.linears(
            "final_mlp",
            TABLES["vqa_2fc"],
            ["final_mlp.1.weight", "final_mlp.4.weight"],
            forms.answers,
            norm=False,
            relu=lambda _: True,
        ),
        forms.linears("final_mlp", TABLES["vcr"], ["final_mlp.1.weight"], forms.choices),
        forms.pretraining(
            VLBERT_PRETRAIN,
            matching=("vlbert.relationsip_head.caption_image_relationship.bias", _matching),
            words=forms.masked_text("vlbert.mlm_head.predictions.transform.dense.bias"),
            regions=forms.region_classes(
                "vlbert.mvrc_head.region_cls_pred.bias", loss="cross_entropy", norm=False
            ),
        ),
        *forms.heads("vlbert.MLT_head.MLT_cls_pred", forms.answers),
        *forms.heads("vlbert.relationsip_head.caption_image_relationship", _related),
    ),
    builders={(768, 12): "vlbert_base", (1024, 24): "vlbert_large"},
    drops=(
        Drop("vlbert.mlm_head", "the head of masked words: pre-training"),
        Drop("vlbert.mvrc_head", "the head of hidden regions: pre-training"),
        Drop("vlbert.relationsip_head", "the head of matching pairs: pre-training"),
        Drop("cnn_loss_reg", "the second loss of end-to-end training"),
        Drop("image_feature_extractor", "the image network of end-to-end files"),
    ),
    processor=_processor,
    places=2,  # regions, and END
    habits={
        "readout": "the file: a head called final_mlp and no pooler are those of questions",
        "box_dim": "the file's vector of hidden regions, or 2048 as published",
        "feature_dim": "the rest of that matrix",
    },
)
