"""ViLBERT and DeVLBERT: facebookresearch/vilbert-multi-task, shengyuzhang/DeVLBert, Vilio's D."""

from dataclasses import replace

from diptych.convert import heads
from diptych.convert.family import PRETRAINING, Family, Head, Node, RecognizedCheckpoint, count, heads_of
from diptych.convert.rules import (
    Drop,
    Keep,
    Rule,
    Table,
    Weights,
    bert_heads,
    bert_layer,
    bert_text,
    masked_words,
    rename,
    transform,
)
from diptych.convert.settings import MEMES, NLVR2, VILIO_SETTINGS, Benchmark, Setting, Settings, Use
from diptych.convert.split import Split
from diptych.models.vilbert import Vilbert


def _intervention(way: str, target: str) -> tuple[Rule, ...]:
    return (
        rename(f"causal_{way}.Wy", f"objectives.causes.{target}.query"),
        rename(f"causal_{way}.Wz", f"objectives.causes.{target}.key"),
        rename(f"causal_{way}.{way}", f"objectives.causes.{target}.value"),  # t2v and v2t only
    )


def _classes(source: str, target: str) -> tuple[Rule, ...]:
    return *transform(f"{source}.transform", target), rename(f"{source}.decoder", f"{target}.3")


TASKS = "embeddings.task_embeddings"
LAYER, MEETING = "encoder.c_layer.{}", "encoder.meetings.{}"
# The originals number the inputs of projections: 1 comes from the regions, 2 from the text.
VILBERT: Table = (
    *bert_text("embeddings", "text"),
    rename("v_embeddings.image_embeddings", "regions.feature"),
    rename("v_embeddings.image_location_embeddings", "regions.box"),
    rename("v_embeddings.LayerNorm", "regions.norm"),
    *bert_layer("encoder.layer.{}", "encoder.text_layers.{}"),
    *bert_layer("encoder.v_layer.{}", "encoder.vision_layers.{}"),
    rename(f"{LAYER}.biattention.query2", f"{MEETING}.text_attention.query"),
    rename(f"{LAYER}.biattention.key1", f"{MEETING}.text_attention.key"),
    rename(f"{LAYER}.biattention.value1", f"{MEETING}.text_attention.value"),
    rename(f"{LAYER}.biOutput.dense2", f"{MEETING}.text_attention.out"),
    rename(f"{LAYER}.biOutput.LayerNorm2", f"{MEETING}.text_attention.norm"),
    rename(f"{LAYER}.biattention.query1", f"{MEETING}.vision_attention.query"),
    rename(f"{LAYER}.biattention.key2", f"{MEETING}.vision_attention.key"),
    rename(f"{LAYER}.biattention.value2", f"{MEETING}.vision_attention.value"),
    rename(f"{LAYER}.biOutput.dense1", f"{MEETING}.vision_attention.out"),
    rename(f"{LAYER}.biOutput.LayerNorm1", f"{MEETING}.vision_attention.norm"),
    rename(f"{LAYER}.t_intermediate.dense", f"{MEETING}.text_feedforward.expand"),
    rename(f"{LAYER}.t_output.dense", f"{MEETING}.text_feedforward.contract"),
    rename(f"{LAYER}.t_output.LayerNorm", f"{MEETING}.text_feedforward.norm"),
    rename(f"{LAYER}.v_intermediate.dense", f"{MEETING}.vision_feedforward.expand"),
    rename(f"{LAYER}.v_output.dense", f"{MEETING}.vision_feedforward.contract"),
    rename(f"{LAYER}.v_output.LayerNorm", f"{MEETING}.vision_feedforward.norm"),
    rename("t_pooler.dense", "pool.text"),
    rename("v_pooler.dense", "pool.vision"),
    Drop(f"{LAYER}.biOutput.q_dense1", "the original declares it and never uses it"),
    Drop(f"{LAYER}.biOutput.q_dense2", "the original declares it and never uses it"),
    Drop("embeddings.position_ids", "a counter that newer versions of BERT save"),
    rename(TASKS, "tasks"),
    Keep("tasks", "only 12-in-1 has task tokens"),
)
CAUSES = ("t", "v", "t2v", "v2t")
VILBERT_PRETRAIN: Table = (  # objectives: words, regions, matching
    *bert_heads(match="bi_seq_relationship"),
    *transform("cls.imagePredictions.transform", "objectives.regions.transform"),
    rename("cls.imagePredictions.decoder", "objectives.regions.predict.classes.decoder"),
)
DEVLBERT_PRETRAIN: Table = (  # objectives: words, regions, matching, causes
    *VILBERT_PRETRAIN,
    *_intervention("t", "words.0"),
    *_intervention("t2v", "words.1"),
    *_intervention("v", "regions.0"),
    *_intervention("v2t", "regions.1"),
    *masked_words("cls.causal_predictor_t", "objectives.causes.word_heads.0"),
    *masked_words("cls.causal_predictor_t2v", "objectives.causes.word_heads.1"),
    *_classes("cls.causal_predictor_v", "objectives.causes.region_heads.0"),
    *_classes("cls.causal_predictor_v2t", "objectives.causes.region_heads.1"),
)
BOX = "v_embeddings.image_location_embeddings.weight"


def _adapt(model: Vilbert, split: Split) -> Split:
    """For a model without the area of boxes, drop the fifth column, as Vilio does."""
    backbone = dict(split.backbone)
    if not model.regions.box_area and BOX in backbone:
        # The area is the last of the five numbers of a box.
        backbone[BOX] = backbone[BOX][:, :4]
    if model.tasks is None:  # the model was built without the task tokens of 12-in-1
        backbone.pop(f"{TASKS}.weight", None)
    return replace(split, backbone=backbone)


def _sizes(file: Split) -> Node:
    """Sizes from the shapes. As in all published files, streams meet in their last layers.

    Heads of the vision stream and of the meetings are 128 wide.
    """
    weights = file.backbone
    words, box = weights["embeddings.word_embeddings.weight"], weights[BOX]
    vision = weights["v_embeddings.image_embeddings.weight"]
    # The width of co-attention, which differs from both streams' in no published file, but may.
    bridge = len(weights["encoder.c_layer.0.biattention.query1.weight"])
    layers, vision_layers, meetings = (
        count(weights, f"encoder.{kind}.{{}}.") for kind in ("layer", "v_layer", "c_layer")
    )
    return {
        "vocab_size": len(words),
        "feature_dim": vision.shape[1],
        "text": {
            "_target_": "diptych.nn.Sizes",
            "dim": words.shape[1],
            "heads": heads_of(words.shape[1]),
            "hidden": len(weights["encoder.layer.0.intermediate.dense.weight"]),
            "layers": layers,
        },
        "vision": {
            "_target_": "diptych.nn.Sizes",
            "dim": len(vision),
            "heads": heads_of(len(vision), 128),
            "hidden": len(weights["encoder.v_layer.0.intermediate.dense.weight"]),
            "layers": vision_layers,
        },
        "bridge": {"_target_": "diptych.nn.Sizes", "dim": bridge, "heads": heads_of(bridge, 128)},
        "meetings": [[layers - meetings + n, vision_layers - meetings + n] for n in range(meetings)],
        "max_positions": len(weights["embeddings.position_embeddings.weight"]),
        "segments": len(weights["embeddings.token_type_embeddings.weight"]),
        "tasks": len(weights.get(f"{TASKS}.weight", ())),
        # Files with four columns are Vilio's, which has no region of the whole image either.
        "box_area": box.shape[1] == 5,
        "whole_image": box.shape[1] == 5,
    }


def _weight_normed(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
    names = [f"vil_prediction.main.{number}.weight_v" for number in (0, 3)]
    if any(name not in weights for name in names):
        return None
    # `weight_v` has the shape of the matrix; `weight_g` is one number in DeVLBERT's version.
    width = len(weights[names[0]]) // dim
    head = {"_target_": "diptych.nn.WeightNormHead", "_partial_": True, "width": width}
    made = heads.classes(len(weights[names[1]]), 1)
    return None if made is None else ({**made[0], "head": head}, made[1])


def _vilio(use: Use) -> bool:
    # Users may have cut the prefix off; the four columns stay.
    return use.prefix == VILIO or not use.found.sizes["box_area"]


def _processor(use: Use) -> Settings:
    if _vilio(use):
        return VILIO_SETTINGS
    if use.kind == "Pretrain":
        why = "the original: captions of 36 tokens, and 36 regions besides the whole image"
        return {"max_tokens": Setting(36, why), "max_regions": Setting(36, why)}
    why = "the original: 100 regions besides the whole image in its tasks"
    return {"max_regions": Setting(100, why)}


def _benchmark(use: Use) -> tuple[Benchmark, str] | None:
    if use.head == "vil_binary_prediction.logit_fc":
        return NLVR2, f"the file: a head called {use.head}"
    return (MEMES, "the file: Vilio's names or its four columns per box") if _vilio(use) else None


VILIO = "model.bert."  # prefix of names in Vilio's files; the originals have `bert.`
FAMILY = Family(
    name="vilbert",
    title="ViLBERT or DeVLBERT (facebookresearch/vilbert-multi-task, shengyuzhang/DeVLBert, Vilio's D)",
    model=Vilbert,
    table=VILBERT,
    adapt=_adapt,
    sizes=_sizes,
    required=frozenset({"encoder.layer.0.attention.self.query.weight", BOX}),
    builders={(768, 12): "vilbert_base"},
    heads=(
        Head(
            name="vil_prediction",
            table=heads.weight_normed("vil_prediction.main"),
            task=_weight_normed,
        ),
        *heads.layouts("vil_prediction.logit_fc", heads.answers),
        *heads.layouts("vil_prediction_gqa.logit_fc", heads.answers),
        *heads.layouts("vil_binary_prediction.logit_fc", heads.classes),
        *heads.layouts("vil_tri_prediction", heads.classes),
        *heads.layouts("vil_logit", heads.retrieval),
        *heads.layouts("vision_logit", heads.grounding),
        heads.pretraining(
            VILBERT_PRETRAIN,
            # Class 0 is a matching caption here, as in BERT's next sentence;
            # `matched_only` is the published run's.
            matching=("cls.bi_seq_relationship.bias", lambda _: heads.objective("Matching", matches=0)),
            words=heads.masked_text("cls.predictions.transform.dense.bias", matched_only=True),
            regions=heads.region_classes("cls.imagePredictions.decoder.bias", matched_only=True),
        ),
        *heads.layouts("cls.bi_seq_relationship", heads.matching(matches=0)),
    ),
    drops=(
        *PRETRAINING,
        Drop("cls.imagePredictions", "the head of hidden regions: pre-training"),
        *(Drop(f"cls.causal_predictor_{kind}", "a head of DeVLBERT's pre-training") for kind in CAUSES),
        *(
            Drop(f"causal_{kind}", "DeVLBERT's interventions, whose dictionaries are not in any file")
            for kind in CAUSES
        ),
        Drop("linguisic_logit", "a score per word, which no task of the original uses"),  # their spelling
        Drop("classifier", "a layer that Vilio declares and never uses"),
    ),
    processor=_processor,
    benchmark=_benchmark,
    habits={
        "box_area": "the file: Vilio has four columns per box, the originals have five",
        "whole_image": "the original: Vilio, with four columns, has no region of the whole image",
        "meetings": "the original: streams meet in their last layers",
    },
)
