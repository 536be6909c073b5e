"""The heads of pre-training, from the names of every original and back."""

from functools import partial

import pytest
import torch

from diptych import models
from diptych.convert.lxmert import LXMERT_PRETRAIN
from diptych.convert.oscar import OSCAR_PRETRAIN
from diptych.convert.rules import load_into, restore
from diptych.convert.uniter import UNITER_PRETRAIN
from diptych.convert.vilbert import DEVLBERT_PRETRAIN, VILBERT_PRETRAIN
from diptych.convert.visualbert import VISUALBERT_PRETRAIN
from diptych.errors import CheckpointMismatch
from diptych.tasks import Pretrain
from diptych.tasks.objectives import (
    Answers,
    Confounders,
    Interventions,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionFeatures,
    RegionLabels,
    RegionProbabilities,
    TagContrast,
)

WORDS = {
    "cls.predictions.bias": (30522,),
    "cls.predictions.transform.dense.weight": (768, 768),
    "cls.predictions.transform.dense.bias": (768,),
    "cls.predictions.transform.LayerNorm.weight": (768,),
    "cls.predictions.transform.LayerNorm.bias": (768,),
}


def linear(name, out, width):
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def block(name, dense, norm, width):
    """Linear, GELU, LayerNorm."""
    return linear(f"{name}{dense}", width, width) | {
        f"{name}{norm}.weight": (width,),
        f"{name}{norm}.bias": (width,),
    }


def regions(**predict):
    return partial(MaskedRegions, predict=predict)


def causes(model):
    """Nouns and classes as many as DeVLBERT's, of the model's widths."""
    seen = Confounders(vectors=torch.zeros(1601, 2048), prior=torch.zeros(1601))
    known = Confounders(vectors=torch.zeros(1155, model.text_dim), prior=torch.zeros(1155))
    return Interventions(model, seen=seen, known=known, nouns=())


VILBERT_HEADS = {
    **WORDS,
    **block("cls.imagePredictions.transform.", "dense", "LayerNorm", 1024),
    **linear("cls.imagePredictions.decoder", 1601, 1024),
    **linear("cls.bi_seq_relationship", 2, 1024),
}
VILBERT_TASK = {
    "matching": partial(Matching, matches=0),
    "words": MaskedText,
    "regions": regions(classes=partial(RegionProbabilities, classes=1601)),
}
PUBLISHED = {
    "uniter": (
        models.uniter_base,
        UNITER_PRETRAIN,
        {
            "matching": Matching,
            "words": MaskedText,
            "features": regions(features=partial(RegionFeatures, tied="regions.feature")),
            "classes": regions(classes=partial(RegionProbabilities, classes=1601)),
        },
        {
            **WORDS,
            "cls.predictions.bias": (28996,),
            **block("feat_regress.net.", "0", "2", 768),
            "feat_regress.bias": (2048,),
            **block("region_classifier.net.", "0", "2", 768),
            **linear("region_classifier.net.3", 1601, 768),
            **linear("itm_output", 2, 768),
        },
    ),
    "oscar+": (
        models.oscar_base,
        OSCAR_PRETRAIN,
        {"matching": partial(TagContrast, classes=3), "words": MaskedText},
        {**WORDS, **linear("cls.seq_relationship", 3, 768)},
    ),
    "visualbert": (
        models.visualbert_base,
        VISUALBERT_PRETRAIN,
        {"matching": partial(TagContrast, matches=1), "words": MaskedText},
        {**WORDS, **linear("cls.seq_relationship", 2, 768)},
    ),
    "lxmert": (
        models.lxmert_base,
        LXMERT_PRETRAIN,
        {
            "matching": Matching,
            "words": MaskedText,
            "regions": regions(
                labels=partial(RegionLabels, classes=1600),
                attributes=partial(RegionLabels, classes=400, field="attributes"),
                features=partial(RegionFeatures, feature_dim=2048),
            ),
            "answers": partial(Answers, labels=[str(number) for number in range(9500)]),
        },
        {
            **WORDS,
            **linear("cls.seq_relationship", 2, 768),
            **block("obj_predict_head.transform.", "dense", "LayerNorm", 768),
            **linear("obj_predict_head.decoder_dict.obj", 1600, 768),
            **linear("obj_predict_head.decoder_dict.attr", 400, 768),
            **linear("obj_predict_head.decoder_dict.feat", 2048, 768),
            **linear("answer_head.logit_fc.0", 1536, 768),
            "answer_head.logit_fc.2.weight": (1536,),
            "answer_head.logit_fc.2.bias": (1536,),
            **linear("answer_head.logit_fc.3", 9500, 1536),
        },
    ),
    "vilbert": (models.vilbert_base, VILBERT_PRETRAIN, VILBERT_TASK, VILBERT_HEADS),
    "devlbert": (
        models.devlbert_base,
        DEVLBERT_PRETRAIN,
        {**VILBERT_TASK, "causes": causes},
        {
            **VILBERT_HEADS,
            **linear("causal_t.Wy", 768, 768),
            **linear("causal_t.Wz", 768, 768),
            **linear("causal_t2v.Wy", 768, 768),
            **linear("causal_t2v.Wz", 768, 2048),
            **linear("causal_t2v.t2v", 768, 2048),
            **linear("causal_v.Wy", 1024, 1024),
            **linear("causal_v.Wz", 1024, 2048),
            **linear("causal_v2t.Wy", 1024, 1024),
            **linear("causal_v2t.Wz", 1024, 768),
            **linear("causal_v2t.v2t", 1024, 768),
            **{
                name.replace("predictions", f"causal_predictor_{way}"): shape
                for way in ("t", "t2v")
                for name, shape in WORDS.items()
            },
            **block("cls.causal_predictor_v.transform.", "dense", "LayerNorm", 2048),
            **linear("cls.causal_predictor_v.decoder", 1601, 2048),
            **block("cls.causal_predictor_v2t.transform.", "dense", "LayerNorm", 1024),
            **linear("cls.causal_predictor_v2t.decoder", 1601, 1024),
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_heads_of_the_published_files(name):
    """All that they hold beside the backbone and what is tied to it."""
    builder, table, objectives, expected = PUBLISHED[name]
    with torch.device("meta"):
        task = Pretrain(builder(), objectives=objectives)
        shapes = {key: tuple(one.shape) for key, one in restore(task.state_dict(), table).items()}
    assert shapes == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_heads_go_around(name):
    builder, table, objectives, _ = PUBLISHED[name]
    tiny = getattr(models, builder.__name__.replace("base", "tiny"))
    torch.manual_seed(0)
    model = tiny(vocab_size=50, feature_dim=2048)
    task, other = (Pretrain(model, objectives=objectives) for _ in range(2))
    tied = {"cls.predictions.decoder.weight": model.word_embedding().weight}
    load_into(other, restore(task.state_dict(), table) | tied, table, where=name)
    assert all(torch.equal(one, task.state_dict()[key]) for key, one in other.state_dict().items())


def test_a_head_that_is_missing_is_named():
    model = models.uniter_tiny()
    task = Pretrain(model, objectives={"words": MaskedText})
    weights = restore(task.state_dict(), UNITER_PRETRAIN)
    del weights["cls.predictions.bias"]
    with pytest.raises(CheckpointMismatch, match=r"1 unfilled: objectives\.words\.head\.bias"):
        load_into(task, weights, UNITER_PRETRAIN, where="uniter.pt")
