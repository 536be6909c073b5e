"""LXMERT: airsplay/lxmert, Vilio's X and Hugging Face, which all use the names of the first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Size, Tensor

from diptych.convert import heads
from diptych.convert.family import PRETRAINING, Family, Layout, Node, bert_sizes, count
from diptych.convert.load import read_weights
from diptych.convert.rules import (
    Drop,
    Keep,
    Rule,
    Table,
    Weights,
    bert_heads,
    bert_layer,
    bert_text,
    convert,
    rename,
    transform,
)
from diptych.convert.settings import MEMES, NLVR2, VILIO_SETTINGS, Benchmark, Setting, Settings, Use
from diptych.convert.split import Split
from diptych.errors import CheckpointMismatch
from diptych.models.lxmert import Lxmert
from diptych.nn import ClassifierHead
from diptych.text import normalize_answer


def attention(source: str, inner: str, target: str) -> tuple[Rule, ...]:
    """Rules for an attention of the cross layers; `inner` is the original name of its three projections."""
    return (
        rename(f"{source}.{inner}.query", f"{target}.query"),
        rename(f"{source}.{inner}.key", f"{target}.key"),
        rename(f"{source}.{inner}.value", f"{target}.value"),
        rename(f"{source}.output.dense", f"{target}.out"),
        rename(f"{source}.output.LayerNorm", f"{target}.norm"),
    )


def side(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for self-attention and feed-forward of one of the two sides of a cross layer."""
    return (
        *attention(f"{source}_self_att", "self", f"{target}.attention"),
        rename(f"{source}_inter.dense", f"{target}.feedforward.expand"),
        rename(f"{source}_output.dense", f"{target}.feedforward.contract"),
        rename(f"{source}_output.LayerNorm", f"{target}.feedforward.norm"),
    )


LXMERT: Table = (
    *bert_text("embeddings", "text"),
    rename("encoder.visn_fc.visn_fc", "regions.feature"),
    rename("encoder.visn_fc.visn_layer_norm", "regions.feature_norm"),
    rename("encoder.visn_fc.box_fc", "regions.box"),
    rename("encoder.visn_fc.box_layer_norm", "regions.box_norm"),
    *bert_layer("encoder.layer.{}", "text_encoder.layers.{}"),
    *bert_layer("encoder.r_layers.{}", "region_encoder.layers.{}"),
    *attention("encoder.x_layers.{}.visual_attention", "att", "cross_layers.{}.attention"),
    *side("encoder.x_layers.{}.lang", "cross_layers.{}.text"),
    *side("encoder.x_layers.{}.visn", "cross_layers.{}.regions"),
    rename("pooler.dense", "pool.dense"),
    Drop("embeddings.position_ids", "a counter that Vilio's version saved"),
)
LXMERT_PRETRAIN: Table = (  # objectives: words, matching, regions, answers
    *bert_heads(),
    *transform("obj_predict_head.transform", "objectives.regions.transform"),
    # Three decoders on one transform; the tied one of features is a Linear of its own in LXMERT.
    rename("obj_predict_head.decoder_dict.obj", "objectives.regions.predict.labels.decoder"),
    rename("obj_predict_head.decoder_dict.attr", "objectives.regions.predict.attributes.decoder"),
    rename("obj_predict_head.decoder_dict.feat", "objectives.regions.predict.features.decoder"),
    rename("answer_head.logit_fc", "objectives.answers.head.layers"),
)


def transfer_answers(
    head: ClassifierHead,
    weights: Mapping[str, Tensor],
    *,
    learned: Sequence[str],
    answers: Sequence[str],
    where: object = "the answer head",
) -> tuple[str, ...]:
    """Fill a task's answer head from the answer head of pre-training.

    In the last layer, an answer takes the row of the same normalized answer, or zeros if there is none. The
    layers before it are copied.

    Args:
        head: answer head of the task.
        weights: what `load_model` returned, with the tensors of `answer_head`.
        learned: answers of pre-training, in the order of the rows of its head.
        answers: answers of the task, in the order of the rows of `head`.
        where: source of the weights, for error messages.

    Returns:
        The answers that pre-training did not have.

    Raises:
        CheckpointMismatch: there is no answer head, or it has other sizes or another number of answers.
    """
    own = {name: tensor for name, tensor in weights.items() if name.startswith("answer_head.")}
    if not own:
        raise CheckpointMismatch(
            f"{where} has no tensors whose names begin with answer_head; use a checkpoint that was "
            "pre-trained with questions."
        )
    shapes = {name: tensor.shape for name, tensor in head.state_dict().items()}
    last = [f"layers.{len(head.layers) - 1}.{part}" for part in ("weight", "bias")]
    if len(answers) != len(head.get_parameter(last[1])):
        raise CheckpointMismatch(
            f"{where}: {len(answers)} answers for a head of {len(head.get_parameter(last[1]))} rows; "
            "expected one answer per row."
        )
    # The last layer has one row per learned answer in the file; the rows are chosen below.
    shapes |= {name: Size((len(learned), *shapes[name][1:])) for name in last}
    state = convert(own, [rename("answer_head.logit_fc", "layers")], shapes=shapes, where=where)
    # `learned` is normalized already; the answers of the task may be spelled in other ways.
    row = {answer: number for number, answer in enumerate(learned)}
    rows = [row.get(normalize_answer(answer)) for answer in answers]
    for name in last:
        # Zeros as in the original: an unknown answer starts at a probability of one half,
        # not at a random one.
        zero = torch.zeros_like(state[name][0])
        state[name] = torch.stack([zero if number is None else state[name][number] for number in rows])
    head.load_state_dict(state)
    return tuple(answer for answer, number in zip(answers, rows, strict=True) if number is None)


def _shallower(model: Lxmert, split: Split) -> Split:
    """A BERT has more layers than the text encoder, which takes the first ones, as the original does."""
    # 12 layers of BERT for 9 of text.
    depth = len(model.text_encoder.layers)
    above = re.compile(r"encoder\.layer\.(\d+)\.")
    backbone = {
        name: one
        for name, one in split.backbone.items()
        if not ((found := above.match(name)) and int(found[1]) >= depth)
    }
    return replace(split, backbone=backbone)


FROM_BERT = Layout(
    table=(
        *bert_text("embeddings", "text"),
        *bert_layer("encoder.layer.{}", "text_encoder.layers.{}"),
        rename("pooler.dense", "pool.dense"),
        Drop("embeddings.position_ids", "a counter that older versions saved"),
        *(Keep(part, "BERT sees nothing") for part in ("regions", "region_encoder", "cross_layers")),
        Keep("pool", "files with the head of masked words alone have no pooler"),
    ),
    adapt=_shallower,
)


def load_text_encoder(model: Lxmert, path: Path | str) -> dict[str, Tensor]:
    """Fill words, text encoder and pooler from a BERT; return the weights of its heads.

    Regions and cross layers stay new, as in LXMERT's pre-training from BERT.

    Raises:
        FormatError: the file is not a weight file.
        CheckpointMismatch: the file is not BERT's, or of other sizes.
    """
    return FROM_BERT.fill(model, FROM_BERT.split(read_weights(path), where=path), where=path)


def _sizes(file: Split) -> Node:
    weights = file.backbone
    return bert_sizes(weights) | {
        "feature_dim": weights["encoder.visn_fc.visn_fc.weight"].shape[1],
        "region_layers": count(weights, "encoder.r_layers.{}."),
        "cross_layers": count(weights, "encoder.x_layers.{}."),
    }


def _regions(weights: Weights) -> Node:
    """The original predicts objects, attributes and features of hidden regions; other files may lack some."""
    # Vilio's files and pre-training without features lack some decoders.
    count = {name: len(weights.get(f"obj_predict_head.decoder_dict.{name}.bias", ())) for name in KINDS}
    predict = {
        "labels": heads.objective("RegionLabels", classes=count["obj"]),
        "attributes": heads.objective("RegionLabels", classes=count["attr"], field="attributes"),
        "features": heads.objective(
            "RegionFeatures", feature_dim=count["feat"], loss="smooth_l1", share=0.15
        ),
    }
    present = {name: node for (name, node), kind in zip(predict.items(), KINDS, strict=True) if count[kind]}
    return heads.objective("MaskedRegions", predict=present)


def _answers(weights: Weights) -> Node:
    count = len(weights["answer_head.logit_fc.3.bias"])
    return heads.objective("Answers", labels=[str(number) for number in range(count)])


def _vilio(use: Use) -> bool:
    """Whether Vilio wrote the file: its head is called `classifier`, and it saved a counter of BERT."""
    return use.head == "classifier" or "embeddings.position_ids" in use.found.split.backbone


def _processor(use: Use) -> Settings:
    if _vilio(use):
        return VILIO_SETTINGS
    return {
        "max_tokens": Setting(20, "the original: LXMERT pads and truncates every text to 20 tokens"),
        "max_regions": Setting(
            100, "the original: LXMERT has no limit; its own files have 36 regions, other files at most 100"
        ),
    }


def _benchmark(use: Use) -> tuple[Benchmark, str] | None:
    if use.head == "classifier":
        return MEMES, "the file: Vilio's head"
    return (NLVR2, "the file: a head over two pairs") if use.pairs == 2 else None


KINDS = ("obj", "attr", "feat")  # names of the decoders of hidden regions
FAMILY = Family(
    name="lxmert",
    title="LXMERT (airsplay/lxmert, Hugging Face, Vilio's X)",
    model=Lxmert,
    table=LXMERT,
    sizes=_sizes,
    required=frozenset({"encoder.layer.0.attention.self.query.weight", "encoder.visn_fc.visn_fc.weight"}),
    builders={(768, 9): "lxmert_base"},
    heads=(
        *heads.layouts("classifier", heads.classes),
        *heads.layouts("logit_fc", heads.classes),
        heads.pretraining(
            LXMERT_PRETRAIN,
            matching=("cls.seq_relationship.bias", lambda _: heads.objective("Matching")),
            words=heads.masked_text("cls.predictions.transform.dense.bias"),
            regions=("obj_predict_head.transform.dense.bias", _regions),
            answers=("answer_head.logit_fc.3.bias", _answers),
        ),
        *heads.layouts("answer_head.logit_fc", heads.answers),
        *heads.layouts("cls.seq_relationship", heads.matching(matches=1)),
    ),
    drops=(
        *PRETRAINING,
        Drop("obj_predict_head", "the heads of hidden regions: pre-training"),
    ),
    processor=_processor,
    benchmark=_benchmark,
)
