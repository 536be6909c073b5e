import pytest
import torch
from tests.parity.heads import HEADS, load_head

from diptych.convert import restore
from diptych.errors import CheckpointMismatch
from diptych.models import uniter_tiny, vilbert_tiny
from diptych.nn import ClassifierHead, PairAttention, WeightNormHead
from diptych.tasks import Classify, Match


def original(table, task):
    return restore(task.state_dict(), table)


@pytest.mark.parametrize(
    ("benchmark", "options"),
    [
        (("uniter", "nlvr2_pair"), {"pairs": 2}),
        (("uniter", "nlvr2_paired_attention"), {"pairs": 2, "readout": PairAttention}),
        (("mmf", "hateful_memes"), {"head": lambda *sizes: ClassifierHead(*sizes, layers=2, width=1)}),
        (("vilio", "hateful_memes"), {"head": lambda *sizes: ClassifierHead(*sizes, layers=2)}),
        (("vilio", "hateful_memes_reg"), {}),
        (("vilio", "hateful_memes_d"), {"head": WeightNormHead}),
        (("ernievil", "hateful_memes"), {"loss": "bce"}),
    ],
)
def test_heads_go_around(benchmark, options):
    family, name = benchmark
    table = HEADS[family][name]
    torch.manual_seed(0)
    one, other = (Classify(uniter_tiny(), labels=("no", "yes"), **options) for _ in "ab")
    theirs = original(table, one)
    assert not any(name.startswith(("head.", "readout.")) for name in theirs)
    load_head(other, theirs | {"cls.predictions.bias": torch.ones(3)}, table, where="file")
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_head_that_is_missing_or_of_another_size_is_a_mismatch():
    model, table = vilbert_tiny(), HEADS["vilbert"]["retrieval"]
    task = Match(model)
    with pytest.raises(CheckpointMismatch, match=r"2 unfilled: head\.layers\.0\.weight"):
        load_head(task, {"vil_prediction.logit_fc.0.weight": torch.ones(2)}, table, where="file")
    wrong = {"vil_logit.weight": torch.ones(2, model.dim), "vil_logit.bias": torch.ones(2)}
    with pytest.raises(CheckpointMismatch, match=r"\(1, 48\)"):
        load_head(task, wrong, table, where="file")
