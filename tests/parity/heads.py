"""Heads that the originals fine-tuned: tables from their names to those of a task, and what they mean."""

from collections.abc import Mapping

from torch import Tensor, nn

from diptych.convert.heads import LAYERS, PAIR_ATTENTION, linear, stacked, transformed, weight_normed
from diptych.convert.rules import Table, load_into, rename, taken, transpose

# By family or by who trained the head, then by the benchmark.
HEADS: Mapping[str, Mapping[str, Table]] = {
    "uniter": {
        "vqa": stacked("vqa_output"),
        "snli_ve": stacked("vqa_output"),
        "nlvr2_pair": linear("nlvr2_output"),
        "nlvr2_triplet": linear("nlvr2_output"),
        "nlvr2_paired_attention": PAIR_ATTENTION,
        "vcr": stacked("vcr_output"),
        "refcoco": linear("re_output"),
        "refcoco_plus": stacked("re_output"),
        "retrieval": linear("rank_output"),
        "match": linear("itm_output"),
    },
    "oscar": {
        "vqa": linear("classifier"),
        "retrieval": linear("classifier"),
        "nlvr2_pair": stacked("classifier"),
        "match": linear("cls.seq_relationship"),
    },
    "visualbert": {
        "nlvr2": linear("classifier"),
        "vcr": linear("classifier"),
        "match": linear("cls.seq_relationship"),
    },
    "mmf": {
        "hateful_memes": transformed("classifier"),
        "nlvr2": transformed("classifier"),
        "vqa": transformed("classifier"),
    },
    "lxmert": {
        "vqa": stacked("logit_fc"),
        "nlvr2": stacked("logit_fc"),
        "match": linear("cls.seq_relationship"),
    },
    "vilbert": {
        "vqa": stacked("vil_prediction.logit_fc"),
        "gqa": stacked("vil_prediction_gqa.logit_fc"),
        "nlvr2": stacked("vil_binary_prediction.logit_fc"),
        "snli_ve": linear("vil_tri_prediction"),
        "retrieval": linear("vil_logit"),
        "vcr": linear("vil_logit"),
        "refcoco": linear("vision_logit"),
        "match": linear("cls.bi_seq_relationship"),
    },
    "devlbert": {
        "vqa": weight_normed("vil_prediction.main"),
        "retrieval": linear("vil_logit"),
        "refcoco": linear("vision_logit"),
        "match": linear("cls.bi_seq_relationship"),
    },
    "ernievil": {
        "hateful_memes": (
            transpose("hm_fc.w_0", f"{LAYERS}.0.weight"),
            rename("hm_fc.b_0", f"{LAYERS}.0.bias"),
        ),
    },
    "vlbert": {
        "vqa": transformed("final_mlp", last=2),
        "vqa_2fc": (rename("final_mlp.1", f"{LAYERS}.0"), rename("final_mlp.4", f"{LAYERS}.2")),
        "vcr": linear("final_mlp.1"),
        "refcoco_plus": (rename("final_mlp.0.dense", f"{LAYERS}.0"), rename("final_mlp.2", f"{LAYERS}.2")),
        "match": linear("vlbert.relationsip_head.caption_image_relationship"),
    },
    "mmbert": {
        "retrieval": linear("vlbert.relationsip_head.caption_image_relationship"),
        "word_translation": linear("vlbert.MLT_head.MLT_cls_pred"),
    },
    "nav13n": {"hateful_memes": linear("linear")},
    "vilio": {
        "hateful_memes": stacked("classifier"),
        "hateful_memes_reg": linear("classifier"),
        "hateful_memes_d": weight_normed("vil_prediction.main"),
    },
}
# Which of the two logits of a `match` head means "matches". Vilio trains Oscar's head the other way round.
MATCHES: Mapping[str, int] = {
    "lxmert": 1,
    "oscar": 0,
    "uniter": 1,
    "vilbert": 0,
    "devlbert": 0,
    "visualbert": 1,
    "vlbert": 1,
}


def load_head(task: nn.Module, weights: Mapping[str, Tensor], table: Table, *, where: object) -> None:
    """Fill a task from what a converter returned beside the backbone; other heads are passed over.

    Raises:
        CheckpointMismatch: the head is missing, or of another shape.
    """
    load_into(task, taken(weights, table), table, where=where)
