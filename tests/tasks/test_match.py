from dataclasses import replace

import pytest
import torch
from tests.parity.heads import MATCHES
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.tasks import Match
from diptych.tasks.base import exchanged


def logits(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("matches", sorted(set(MATCHES.values())))
def test_a_two_way_head_says_with_its_index_which_side_matches(model, batch, matches):
    given, task = batch([1, 0, 0, 1]), Match(model, matches=matches)
    encoding = model(given.inputs)
    both = task.head(encoding.pooled)
    scores = task.score(encoding, given)
    torch.testing.assert_close(scores.sigmoid()[:, 0], both.softmax(-1)[:, matches])
    labels = given.targets if matches == 1 else 1 - given.targets
    torch.testing.assert_close(task.loss(scores, given), F.cross_entropy(both, labels))


def test_losses_over_several_pairs(model, batch):
    given, scores = batch([1, 0], pairs=2), logits(2, 2)
    torch.testing.assert_close(
        Match(model, loss="ce").loss(scores, given), F.cross_entropy(scores, given.targets)
    )
    right = torch.tensor([[0.0, 1], [1, 0]])
    torch.testing.assert_close(
        Match(model).loss(scores, given), F.binary_cross_entropy_with_logits(scores, right)
    )
    (a, b), (c, d) = scores.sigmoid()
    expected = ((0.3 + a - b).clamp(min=0) + (0.3 + d - c).clamp(min=0)) / 2
    torch.testing.assert_close(Match(model, loss="margin", margin=0.3).loss(scores, given), expected)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_one_pair_has_nothing_to_be_compared_with(model, batch, loss):
    with pytest.raises(ConfigError, match=rf"task\.loss={loss} .*m0"):
        Match(model, loss=loss).loss(logits(4, 1), batch([1, 0, 0, 1]))


def test_single_pairs_get_a_probability_and_several_a_choice(model, batch):
    task = Match(model)
    single = task.decode(torch.tensor([[0.0], [-1], [2], [9]]), batch())
    assert single.column("matches")[0] == 0.5
    assert single.answers == ("1", "0", "1", "1")
    assert task.measure(single, {"m0": 1, "m1": 0, "m2": 1, "m3": None}) == {"auroc": 1.0, "accuracy": 1.0}
    several = task.decode(torch.tensor([[0.0, 1], [2, 0]]), batch(pairs=2))
    assert several.answers == ("1", "0")
    assert task.measure(several, {"m0": 1, "m1": 0})["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"loss": "mse"}, r"task\.loss .*'mse'"), ({"matches": 2}, r"task\.matches .* 2; .* 0, 1 or null")],
)
def test_wrong_settings_are_named(model, options, message):
    with pytest.raises(ConfigError, match=message):
        Match(model, **options)


def test_hard_pairs_are_the_best_scored_wrong_ones(model, batch):
    given = batch([1, 1, 1, 1])
    task = Match(model, hard=3).train()  # all other rows are candidates
    outcome = task(model, given, torch.Generator().manual_seed(0))
    assert outcome.logits.shape == (4, 3)
    every = torch.stack(
        [
            task.score(model(exchanged(given.inputs, torch.arange(4), torch.full((4,), image))), given)[:, 0]
            for image in range(4)
        ]
    )  # image by text
    wrong = every.masked_fill(torch.eye(4).bool(), -torch.inf)
    expected = torch.stack([every.diagonal(), wrong.amax(1), wrong.amax(0)], 1)
    torch.testing.assert_close(outcome.logits, expected)
    torch.testing.assert_close(
        outcome.loss, F.binary_cross_entropy_with_logits(expected, torch.tensor([[1.0, 0, 0]]).expand(4, 3))
    )
    assert torch.equal(task.eval()(model, given).loss, Match.loss(task, every.diagonal()[:, None], given))


def test_semi_hard_pairs_score_below_the_right_one(model, batch):
    given = batch([1, 1, 1, 1])
    task = Match(model, hard=3, semi_hard=True).train()
    logits = task(model, given, torch.Generator().manual_seed(0)).logits
    every = torch.stack(
        [
            task.score(model(exchanged(given.inputs, torch.arange(4), torch.full((4,), image))), given)[:, 0]
            for image in range(4)
        ]
    )  # image by text
    for side, scores in enumerate((every, every.T), 1):
        for row in range(4):
            wrong = torch.cat([scores[row, :row], scores[row, row + 1 :]])
            below = wrong[wrong < every[row, row]]
            torch.testing.assert_close(logits[row, side], below.max() if len(below) else wrong.min())


def test_hard_pairs_never_show_the_same_image(model, batch):
    given = batch([1, 1, 1], rows=3)
    regions = given.inputs.regions.map(lambda tensor: tensor[[0, 0, 1]])  # two captions of one image
    given = replace(given, inputs=replace(given.inputs, regions=regions))
    task = Match(model, hard=2).train()
    logits = task(model, given, torch.Generator().manual_seed(0)).logits
    only = exchanged(given.inputs, torch.tensor([2, 2]), torch.tensor([0, 0]))
    torch.testing.assert_close(logits[:2, 1], task.score(model(only), given)[:, 0])


def test_a_batch_without_another_image_has_no_loss(model, batch):
    outcome = Match(model, hard=4, loss="ce").train()(model, batch([1], rows=1))
    assert outcome.loss == 0


def test_hard_pairs_need_true_ones(model, batch):
    with pytest.raises(ConfigError, match="hard"):
        Match(model, hard=2).train()(model, batch([1, 0], rows=2))
    with pytest.raises(ConfigError, match="-1"):
        Match(model, hard=-1)
    with pytest.raises(ConfigError, match=r"hard is 0.*semi_hard"):
        Match(model, semi_hard=True)
