"""ERNIE-ViL: folders of Paddle parameters, as PaddlePaddle/ERNIE and Vilio write them."""

import re
from typing import Any

from diptych.convert import heads
from diptych.convert.family import Family, Head, Node, RecognizedCheckpoint, count, heads_of
from diptych.convert.rules import Drop, Rule, Table, Weights, rename, transpose
from diptych.convert.settings import MEMES, Setting, Settings, Use
from diptych.convert.split import Backbone, Split
from diptych.models.ernievil import ErnieVil


def _linear(source: str, target: str) -> tuple[Rule, ...]:
    return transpose(f"{source}.w_0", f"{target}.weight"), rename(f"{source}.b_0", f"{target}.bias")


def _norm(source: str, target: str) -> tuple[Rule, ...]:
    return rename(f"{source}_scale", f"{target}.weight"), rename(f"{source}_bias", f"{target}.bias")


# Example: `_half("encoder_colayer_{}_vl_", ...)` gives `encoder_colayer_3_vl_ffn_fc_0.w_0` and its kin.
def _half(start: str, attention: str, feedforward: str) -> tuple[Rule, ...]:
    """A layer, or the part of one stream in a meeting. Names of the vision stream have `vl_` in them."""
    return (
        *_linear(f"{start}multi_head_att_query_fc", f"{attention}.query"),
        *_linear(f"{start}multi_head_att_key_fc", f"{attention}.key"),
        *_linear(f"{start}multi_head_att_value_fc", f"{attention}.value"),
        *_linear(f"{start}multi_head_att_output_fc", f"{attention}.out"),
        *_norm(f"{start}post_att_layer_norm", f"{attention}.norm"),
        *_linear(f"{start}ffn_fc_0", f"{feedforward}.expand"),
        *_linear(f"{start}ffn_fc_1", f"{feedforward}.contract"),
        *_norm(f"{start}post_ffn_layer_norm", f"{feedforward}.norm"),
    )


TEXT, VISION, MEETING = "encoder.text_layers.{}", "encoder.vision_layers.{}", "encoder.meetings.{}"
ERNIEVIL: Table = (
    rename("word_embedding", "text.words.weight"),
    rename("pos_embedding", "text.positions.weight"),
    rename("sent_embedding", "text.segments.weight"),
    *_norm("pre_encoder_layer_norm", "text.norm"),
    *_linear("image_emb", "regions.feature"),
    *_linear("image_loc", "regions.box"),
    *_norm("vl_pre_encoder_layer_norm", "regions.norm"),
    *_half("encoder_layer_{}_", f"{TEXT}.attention", f"{TEXT}.feedforward"),
    *_half("encoder_vlayer_{}_", f"{VISION}.attention", f"{VISION}.feedforward"),
    *_half("encoder_colayer_{}_", f"{MEETING}.text_attention", f"{MEETING}.text_feedforward"),
    *_half("encoder_colayer_{}_vl_", f"{MEETING}.vision_attention", f"{MEETING}.vision_feedforward"),
    *_linear("pooled_fc_text", "pool.text"),
    *_linear("pooled_fc_image", "pool.vision"),
)
BACKBONE = re.compile(r"(word|pos|sent)_embedding|(vl_)?pre_encoder_|image_(emb|loc)\.|encoder_|pooled_fc_")
OPTIMIZER = re.compile(
    r".*_(moment[12]|beta[12]_pow_acc)_\d+|scheduled_learning_rate.*|learning_rate.*|@.*@"
)  # state of the optimizer, which the original saves into the same folder


def _sizes(file: Split) -> Node:
    """Sizes from the shapes. The streams meet in their last layers, as in all published files."""
    weights = file.backbone
    words, vision = weights["word_embedding"], weights["image_emb.w_0"]
    # Paddle stores a Linear as (inputs, outputs), so widths of outputs are second here.
    bridge = weights["encoder_colayer_0_multi_head_att_query_fc.w_0"].shape[1]
    layers, vision_layers, meetings = (
        count(weights, f"encoder_{kind}_{{}}_") for kind in ("layer", "vlayer", "colayer")
    )
    # Heads of the vision stream and the meetings of the two published sizes, by the width of the text.
    heads = {768: 8, 1024: 16}.get(words.shape[1])
    return {
        "vocab_size": len(words),
        "feature_dim": len(vision),
        "text": {
            "_target_": "diptych.nn.Sizes",
            "dim": words.shape[1],
            "heads": heads_of(words.shape[1]),
            "hidden": weights["encoder_layer_0_ffn_fc_0.w_0"].shape[1],
            "layers": layers,
        },
        "vision": {
            "_target_": "diptych.nn.Sizes",
            "dim": vision.shape[1],
            "heads": heads,
            "hidden": weights["encoder_vlayer_0_ffn_fc_0.w_0"].shape[1],
            "layers": vision_layers,
        },
        "bridge": {"_target_": "diptych.nn.Sizes", "dim": bridge, "heads": heads},
        "meetings": [[layers - meetings + n, vision_layers - meetings + n] for n in range(meetings)],
        "max_positions": len(weights["pos_embedding"]),
        "segments": len(weights["sent_embedding"]),
    }


def _head(name: str, become: heads.ToTask, **node: Any) -> Head:
    def task(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
        matrix = weights[f"{name}.w_0"]
        made = become(matrix.shape[1], 1) if len(matrix) == dim else None
        head = {"_target_": "diptych.nn.ClassifierHead", "_partial_": True}
        return None if made is None else ({**made[0], "head": head, **node}, made[1])

    return Head(name=name, table=_linear(name, "head.layers.0"), task=task)


def _one_score(outputs: int, pairs: int) -> tuple[Node, int] | None:
    # Vilio's E trains one logit with a sigmoid: a head of one output for two classes.
    return ({"_target_": "diptych.tasks.Classify", "loss": "bce"}, 2) if outputs == 1 else None


def _processor(use: Use) -> Settings:
    tokens = Setting(None, "the original: ERNIE-ViL's reader of memes never truncates a text")
    if use.head == "meme_fc":
        tokens = Setting(80, "the original: HimariO truncates every text to 80 tokens")
    return {"max_tokens": tokens}


FAMILY = Family(
    name="ernievil",
    title="ERNIE-ViL (PaddlePaddle/ERNIE, Vilio's E, HimariO's npz)",
    model=ErnieVil,
    table=ERNIEVIL,
    sizes=_sizes,
    backbone=Backbone(key="word_embedding", pattern=BACKBONE, optimizer=OPTIMIZER),
    advice=" Give the folder of Paddle parameters, usually called params.",
    required=frozenset({"word_embedding", "image_emb.w_0", "encoder_colayer_0_multi_head_att_query_fc.w_0"}),
    builders={(768, 12): "ernievil_base", (1024, 24): "ernievil_large"},
    processor=_processor,
    benchmark=lambda use: (
        (MEMES, f"the file: a head called {use.head}") if use.head in ("hm_fc", "meme_fc") else None
    ),
    habits={"meetings": "the original: streams meet in their last layers"},
    heads=(
        _head("hm_fc", _one_score),
        # HimariO's archives hold an untrained `meme_fc`, which converts like a trained one:
        # nothing tells them apart.
        _head("meme_fc", heads.classes),
        _head("vcr_qa_fc", heads.choices),
        _head("vcr_qar_fc", heads.choices),
        _head("match_fc", heads.retrieval),
    ),
    drops=(
        *(
            Drop(f"vqa_fc_{part}_{n}", "a head of answers with a layout of which no file is published")
            for part in "wb"
            for n in (0, 1)
        ),
        *(
            Drop(
                f"cls_seq_label_vl_out_{part}",
                "a head of grounding with a layout of which no file is published",
            )
            for part in "wb"
        ),
    ),
)
