"""What RGCL compares with what, and how its cases decide."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import Embeddings
from diptych.nn import FusionHead
from diptych.tasks import HateClipper, MemeClip, Rgcl
from diptych.tasks.rgcl import Guidance
from diptych.types import Batch, Example, Inputs, PaddedRegions

LABELS = ("benign", "hateful")
MODEL = Embeddings(parts={"tower_image": 5, "tower_text": 4})


def batch(vectors, labels, ids=None):
    count = len(vectors)
    regions = PaddedRegions(
        features=vectors[:, None],
        boxes=torch.zeros(count, 1, 4),
        mask=torch.ones(count, 1).bool(),
        image_index=torch.zeros(count, 1, dtype=torch.int64),
        sizes=torch.ones(count, 2),
    )
    names = tuple(ids or map(str, range(count)))
    return Batch(ids=names, inputs=Inputs(regions=regions), targets=labels)


def build(**settings):
    torch.manual_seed(0)
    given = {"labels": LABELS, "cases": 12, "dim": 6, "width": 7, "layers": 1, "dropouts": (0, 0, 0)}
    return Rgcl(MODEL, **{**given, **settings})


@pytest.fixture
def everyone():
    torch.manual_seed(1)
    return batch(torch.randn(12, 9), torch.arange(12) % 2)


def remembered(task, everyone):
    task.know(everyone.ids)
    rows = [everyone.inputs.map(lambda one, part=part: one[part]) for part in (slice(5), slice(5, 12))]
    parts = [replace(everyone, ids=everyone.ids[:5], inputs=rows[0], targets=everyone.targets[:5])]
    parts += [replace(everyone, ids=everyone.ids[5:], inputs=rows[1], targets=everyone.targets[5:])]
    task.remember(MODEL, parts)
    return task


def test_an_example_is_not_its_own_positive_unless_asked_for(everyone):
    task = remembered(build(), everyone)
    bank, labels = task.bank, everyone.targets
    same, itself = labels[:, None] == labels, torch.eye(12).bool()
    _, gold = Guidance().find(bank, bank, same=same, other=~same, itself=itself)
    assert not (gold[:, 0] == torch.arange(12)).any()
    assert (labels[gold[:, 0]] == labels).all()
    _, compat = Guidance(compat=True).find(bank, bank, same=same, other=~same, itself=itself)
    assert torch.equal(compat[:, 0], torch.arange(12))
    ours = task.compare(bank, everyone)
    theirs = remembered(build(compat=True), everyone).compare(bank, everyone)
    assert theirs["gold"].item() == pytest.approx(1)
    assert ours["gold"] < theirs["gold"]


def test_more_hard_negatives_than_positives_are_honored_and_missing_ones_left_out(everyone):
    bank, labels = torch.randn(4, 7), torch.tensor([0, 0, 1, 1])
    same, itself = labels[:, None] == labels, torch.eye(4).bool()
    hard, gold = Guidance(hard=3, gold=1).find(bank, bank, same=same, other=~same, itself=itself)
    assert (hard >= 0).sum(1).tolist() == [2, 2, 2, 2]  # of three wanted, so many exist
    assert gold.shape == (4, 1)
    few = Guidance(hard=3, gold=3)(bank, labels, bank, *Guidance(hard=3, gold=3).find(
        bank, bank, same=same, other=~same, itself=itself))  # fmt: skip
    cosines = F.cosine_similarity(bank[:, None], bank[None], dim=-1)
    assert few["gold"].item() == pytest.approx(cosines[~itself & same].mean().item(), abs=1e-6)


@pytest.mark.parametrize("contrast", ["triplet", "contrastive", "naive"])
@pytest.mark.parametrize("gold", [0, 1])
def test_a_batch_of_one_label_has_a_finite_loss_and_gradient(everyone, contrast, gold):
    task = remembered(build(contrast=contrast, gold=gold), everyone).train()
    alone = batch(torch.randn(1, 9), torch.tensor([1]), ["new"])
    outcome = task(MODEL, alone)
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert all(one.grad is None or one.grad.isfinite().all() for one in task.parameters())


def test_no_gradient_flows_into_the_bank_and_padding_cases_are_never_found(everyone):
    task = build(cases=12)
    assert (task.bank_labels == -1).all()
    task.know(everyone.ids)
    vectors = task.embed(MODEL(everyone.inputs), everyone)
    parts = task.compare(vectors, everyone)  # nothing is remembered yet
    assert parts["hard"].item() == 0 == parts["gold"].item()
    assert not remembered(task, everyone).bank.requires_grad


def test_the_nearest_cases_decide_and_their_shares_add_up(everyone):
    task = remembered(build(decide="cases", neighbors=3), everyone).eval()
    query = batch(torch.randn(4, 9), None)
    logits = task(MODEL, query).logits
    shares, rows = task.nearest(task.embed(MODEL(query.inputs), query))
    torch.testing.assert_close(2 * logits.softmax(-1)[:, 1] - 1, shares.sum(1))
    assert (shares.sign() == (2 * everyone.targets[rows] - 1) * shares.abs().sign()).all() or (
        shares < 0
    ).any()
    # Its own weights are enough: a bundle votes without the training set.
    other = build(decide="cases", neighbors=3).eval()
    other.load_state_dict(task.state_dict())
    assert torch.equal(other(MODEL, query).logits, logits)


def test_a_split_that_has_an_example_twice_knows_it_as_one(everyone):
    task = build()
    task.know(["a", *everyone.ids[:10], "a"])
    assert task._places[0] == task._places[-1]
    with pytest.raises(ConfigError, match="12"):
        task.know(["a"])


def test_fine_grained_labels_add_a_loss_where_they_are_known():
    settings = {"labels": LABELS, "dim": 6, "dropouts": (0, 0, 0)}
    torch.manual_seed(0)
    task = HateClipper(MODEL, **settings, fine=["slurs", "mocking"], fine_loss=0.5).eval()
    examples = [
        Example(id="0", pairs=(), target="hateful", meta={"fine": {"slurs": 1.0, "mocking": 0.0}}),
        Example(id="1", pairs=(), target="benign"),
    ]
    targets = task.targets(examples)
    assert targets["label"].tolist() == [1, 0]
    assert targets["fine"].isnan().tolist() == [[False, False], [True, True]]
    given = batch(torch.randn(2, 9), targets)
    outcome, plain = task(MODEL, given), replace(given, targets=targets["label"])
    vector = task.head.embed(task.readout(MODEL(given.inputs), given))
    fine = F.binary_cross_entropy_with_logits(task.fine_head(F.relu(vector))[0], torch.tensor([1.0, 0.0]))
    assert outcome.logs["fine"].item() == pytest.approx(fine.item())
    assert outcome.loss.item() == pytest.approx((task.loss(outcome.logits, plain) + 0.5 * fine).item())
    assert task.targets([replace(examples[0], target=None)]) is None


def test_what_does_not_fit_is_refused():
    for settings, match in (
        ({"contrast": "triple"}, "triple"),
        ({"decide": "both"}, "both"),
        ({"labels": ["a", "b", "c"], "decide": "cases"}, "3 labels"),
        ({"dropouts": (0.1,)}, "dropouts"),
        ({"fusion": "sum"}, "sum"),
    ):
        with pytest.raises(ConfigError, match=match):
            build(**settings)
    with pytest.raises(ConfigError, match="joint_image"):
        MemeClip(MODEL, labels=LABELS)
    joint = Embeddings(parts={"joint_image": 4, "joint_text": 4})
    with pytest.raises(ConfigError, match="prompts"):
        MemeClip(joint, labels=LABELS, prompts={"benign": ["a"], "hateful": ["b"]})
    with pytest.raises(ConfigError, match="two vectors"):
        FusionHead(5, 2, widths=(2, 2))
