"""UNITER: ChenRocks/UNITER, and the files of nav13n and Vilio's U."""

from dataclasses import replace

import torch

from diptych.convert import heads
from diptych.convert.family import PRETRAINING, Family, Head, Node, RecognizedCheckpoint, bert_sizes
from diptych.convert.rules import (
    Drop,
    Keep,
    Table,
    Weights,
    bert_layer,
    bert_text,
    masked_words,
    rename,
    row,
)
from diptych.convert.settings import MEMES, NLVR2, Benchmark, Setting, Settings, Use
from diptych.convert.split import Split
from diptych.models.uniter import Uniter

UNITER: Table = (
    *bert_text("embeddings", "text"),
    rename("img_embeddings.img_linear", "regions.feature"),
    rename("img_embeddings.img_layer_norm", "regions.feature_norm"),
    rename("img_embeddings.pos_linear", "regions.box"),
    rename("img_embeddings.pos_layer_norm", "regions.box_norm"),
    rename("img_embeddings.LayerNorm", "regions.norm"),
    # The original adds row 0 of this table, all zeros, to regions that are not hidden.
    row("img_embeddings.mask_embedding.weight", "regions.hidden", index=1, rows=2),
    *bert_layer("encoder.layer.{}", "encoder.layers.{}"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that Vilio's version saved"),
    Keep("regions.hidden", "Vilio's UNITER hides no regions and has no vector for them"),
)
UNITER_PRETRAIN: Table = (  # objectives: words, features, classes, matching
    *masked_words("cls.predictions", "objectives.words.head"),
    rename("feat_regress.net", "objectives.features.transform"),
    rename("feat_regress.bias", "objectives.features.predict.features.bias"),
    Drop("feat_regress.weight", "the model's Linear for features, to which it is tied"),
    # Before `region_classifier.net`, which would take this Linear, too.
    rename("region_classifier.net.3", "objectives.classes.predict.classes.decoder"),
    rename("region_classifier.net", "objectives.classes.transform"),
    rename("itm_output", "objectives.matching.head.layers.0"),
)


def _sizes(file: Split) -> Node:
    return bert_sizes(file.backbone) | {
        "feature_dim": file.backbone["img_embeddings.img_linear.weight"].shape[1]
    }


def _adapt(model: Uniter, split: Split) -> Split:
    """Give the images of a row segments of their own, as UNITER's NLVR2 does: copies of that of regions."""
    name = "embeddings.token_type_embeddings.weight"
    table, rows = split.backbone[name], model.text.segments.num_embeddings
    if len(table) != 2 or rows <= 2:
        return split
    # Row 1 is that of regions; the original starts the new rows as copies of it.
    longer = torch.cat([table, table[1:].expand(rows - 2, -1)])
    return replace(split, backbone={**split.backbone, name: longer})


def _paired(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
    """The NLVR2 head in which two pairs attend to each other."""
    if "attn1.in_proj_weight" not in weights:
        return None
    readout = {"_target_": "diptych.nn.PairAttention", "_partial_": True, "heads": found.sizes["heads"]}
    head = {"_target_": "diptych.nn.ClassifierHead", "_partial_": True}
    return {"_target_": "diptych.tasks.Classify", "pairs": 2, "readout": readout, "head": head}, 2


def _processor(use: Use) -> Settings:
    if use.head == "linear":
        return {
            "max_tokens": Setting(256, "the original: nav13n pads and truncates every text to 256 tokens"),
            "tags": Setting(True, "the original: nav13n's second text is the names of the objects"),
            "box_scale": Setting(
                "swapped", "the original: nav13n divides x by the height and y by the width"
            ),
        }
    images = {}
    # A table of two rows has no segment for a second image.
    if use.head in ("attn1", "nlvr2_output") and use.found.sizes["segments"] > 2 and use.pairs == 2:
        images["number_images"] = Setting(True, "the file: a segment for each of two images")
    return images | {
        "max_tokens": Setting(None, "the original: UNITER and Vilio's U never truncate a text"),
        "max_regions": Setting(100, "the original: UNITER's and Vilio's files have at most 100 regions"),
    }


def _benchmark(use: Use) -> tuple[Benchmark, str] | None:
    if use.head in ("attn1", "nlvr2_output"):
        return NLVR2, f"the file: a head called {use.head}"
    if use.head == "linear":
        return MEMES, "the file: nav13n's head"
    return (MEMES, "the file: Vilio's prefix model.") if use.prefix == "model." else None


FEATURES = {"features": heads.objective("RegionFeatures", tied="regions.feature")}
FAMILY = Family(
    name="uniter",
    title="UNITER (ChenRocks/UNITER, nav13n, Vilio's U)",
    model=Uniter,
    table=UNITER,
    adapt=_adapt,
    sizes=_sizes,
    required=frozenset({"encoder.layer.0.attention.self.query.weight", "img_embeddings.img_linear.weight"}),
    builders={(768, 12): "uniter_base", (1024, 24): "uniter_large"},
    heads=(
        Head(name="attn1", table=heads.PAIR_ATTENTION, task=_paired),
        *heads.layouts("classifier", heads.classes),
        *heads.layouts("linear", heads.classes),
        *heads.layouts("nlvr2_output", heads.classes),
        *heads.layouts("vqa_output", heads.answers),
        *heads.layouts("vcr_output", heads.choices, relu=lambda _: True),
        *heads.layouts("re_output", heads.grounding),
        *heads.layouts("rank_output", heads.retrieval),
        heads.pretraining(
            UNITER_PRETRAIN,
            # The original exchanges the image only, because words are masked in other steps.
            matching=("itm_output.bias", lambda _: heads.objective("Matching", exchange="regions")),
            alignment=("itm_output.bias", lambda _: heads.objective("Alignment")),
            words=heads.masked_text("cls.predictions.transform.dense.bias"),
            features=("feat_regress.bias", lambda _: heads.objective("MaskedRegions", predict=FEATURES)),
            classes=heads.region_classes("region_classifier.net.3.bias", loss="kl_mean"),
            # Weights and frequencies of the objectives in the original's config of pre-training.
            draw={
                "weights": {"alignment": 0.1},
                "draw": {"matching+alignment": 6, "words": 8, "features": 4, "classes": 4},
            },
        ),
        *heads.layouts("itm_output", heads.matching(matches=1)),
    ),
    drops=(
        *PRETRAINING,
        Drop("feat_regress", "the head of hidden regions' features: pre-training"),
        Drop("region_classifier", "the head of hidden regions' classes: pre-training"),
    ),
    processor=_processor,
    benchmark=_benchmark,
)
