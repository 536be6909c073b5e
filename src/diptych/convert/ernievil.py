"""ERNIE-ViL's weights: a folder of Paddle parameters, as PaddlePaddle/ERNIE and Vilio leave it."""

import re
from pathlib import Path

from torch import Tensor

from diptych.convert.load import read_weights
from diptych.convert.paddle import read_paddle
from diptych.convert.rules import Rule, Table, load_into, rename, transpose
from diptych.errors import CheckpointMismatch
from diptych.models.ernievil import ErnieVil


def _linear(source: str, target: str) -> tuple[Rule, ...]:
    return transpose(f"{source}.w_0", f"{target}.weight"), rename(f"{source}.b_0", f"{target}.bias")


def _norm(source: str, target: str) -> tuple[Rule, ...]:
    return rename(f"{source}_scale", f"{target}.weight"), rename(f"{source}_bias", f"{target}.bias")


def _half(start: str, attention: str, feedforward: str) -> tuple[Rule, ...]:
    """A layer, or what one stream does in a meeting; the parts of the vision stream are called `vl_`."""
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
TRAINING = re.compile(
    r".*_(moment[12]|beta[12]_pow_acc)_\d+|scheduled_learning_rate.*|learning_rate.*|@.*@"
)  # what the optimizer of the original leaves in the folder


def load_ernievil(model: ErnieVil, path: Path | str) -> dict[str, Tensor]:
    """Fill an ERNIE-ViL and return, under their own names, the weights of heads, which belong to tasks.

    Args:
        path: a folder of Paddle parameters, or a weight file with the same names.

    Raises:
        FormatError: the folder or a file in it cannot be read.
        CheckpointMismatch: the weights are not ERNIE-ViL's, or of other sizes.
    """
    weights = read_paddle(path) if Path(path).is_dir() else read_weights(path)
    return fill_ernievil(model, weights, where=path)


def fill_ernievil(model: ErnieVil, weights: dict[str, Tensor], *, where: object) -> dict[str, Tensor]:
    """As `load_ernievil`, from weights that have been read."""
    lasting = {name: one for name, one in weights.items() if not TRAINING.fullmatch(name)}
    backbone = {name: one for name, one in lasting.items() if BACKBONE.match(name)}
    if not backbone:
        raise CheckpointMismatch(
            f"{where}: none of {len(weights)} names is ERNIE-ViL's, first {', '.join(list(weights)[:3])}. "
            "Give the folder of Paddle parameters, usually called params."
        )
    load_into(model, backbone, ERNIEVIL, where=where)
    return {name: one for name, one in lasting.items() if name not in backbone}
