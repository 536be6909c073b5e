import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import image_resnet_tiny, uniter_tiny
from diptych.tasks.objectives import MaskedText, Sample, WordMasking
from diptych.types import Encoding, Inputs, PaddedRegions, PaddedText

MASK = 103


def text(rows=200, width=100, *, low=200, high=1000):
    ids = torch.randint(low, high, (rows, width), generator=torch.Generator().manual_seed(0))
    return PaddedText(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), segments=torch.zeros_like(ids))


def corrupt(given, masking, seed=1, **options):
    return masking(given, torch.Generator().manual_seed(seed), vocab_size=1000, **options)


def test_fifteen_percent_are_asked_of_which_four_fifths_are_masked():
    given = text()
    shown, words = corrupt(given, WordMasking(random_from=150))
    asked = words >= 0
    assert torch.equal(words[asked], given.ids[asked])
    assert torch.equal(shown.ids[~asked], given.ids[~asked])
    assert asked.float().mean() == pytest.approx(0.15, abs=0.01)
    kinds = shown.ids[asked]
    assert (kinds == MASK).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (kinds == words[asked]).float().mean() == pytest.approx(0.1, abs=0.02)
    assert kinds[kinds != MASK].min() >= 150


def test_only_rows_that_may_be_asked_are():
    rows = torch.arange(200) < 50
    _, words = corrupt(text(), WordMasking(), rows=rows)
    assert (words[:50] >= 0).any()
    assert (words[50:] == -1).all()


def test_the_first_token_is_asked_where_chance_chose_none():
    given = text(20, 4)
    given.ids[:, 0] = 101
    shown, words = corrupt(given, WordMasking(rate=1e-6, at_least_one=True))
    assert (words >= 0).nonzero().tolist() == [[row, 1] for row in range(20)]
    assert (shown.ids[:, 1] == MASK).all()


def test_words_are_chosen_as_a_whole():
    given = text()
    starts = given.ids < 500
    starts[:, 0] = True
    _, words = corrupt(given, WordMasking(continuations=range(500, 1000)))
    asked, word = words >= 0, (given.ids < 500).cumsum(1)
    same = word[:, 1:] == word[:, :-1]
    assert (asked[:, 1:] == asked[:, :-1])[same].all()
    assert 0.1 < asked.float().mean() < 0.2


@pytest.mark.parametrize("odd", [{"rate": 1.5}, {"masked": 0.8, "random": 0.3}, {"random": -0.1}])
def test_impossible_shares_are_refused(odd):
    with pytest.raises(ConfigError, match=", ".join(f"{key}={value}" for key, value in odd.items())):
        WordMasking(**odd)


def test_a_model_without_text_states_is_refused():
    with pytest.raises(ConfigError, match=r"Concat .* 0; "):
        MaskedText(image_resnet_tiny())


@pytest.mark.parametrize("by", ["all", "rows"])
def test_the_loss_is_that_of_all_positions_with_the_others_ignored(by):
    torch.manual_seed(0)
    model = uniter_tiny()
    objective = MaskedText(model, by=by)
    given = text(3, 6)
    words = given.ids.clone()
    words[0, 2:], words[1, :5], words[2] = -1, -1, -1
    states = torch.randn(3, 6, model.text_dim)
    sample = Sample(inputs=Inputs(text=given), words=words)
    loss = objective(model, Encoding(text=states), sample)["words"]
    scores = objective.head(states, model.word_embedding().weight)
    each = F.cross_entropy(scores.flatten(0, 1), words.flatten(), ignore_index=-1, reduction="none")
    rows, counts = each.reshape(3, 6).sum(1), (words >= 0).sum(1)
    expected = rows.sum() / 3 if by == "all" else (rows / (counts + 1e-4)).sum() / (2 + 1e-4)
    torch.testing.assert_close(loss, expected)


def test_torn_pairs_are_left_alone_on_demand():
    given = Sample(inputs=Inputs(text=text(50, 20)), mismatch=torch.arange(50) % 2)
    generator = torch.Generator().manual_seed(0)
    careful = MaskedText(uniter_tiny(), matched_only=True).corrupt(given, generator)
    assert (careful.words[given.mismatch == 1] == -1).all()
    assert torch.equal(careful.inputs.text.ids[1::2], given.inputs.text.ids[1::2])
    assert (MaskedText(uniter_tiny()).corrupt(given, generator).words[1::2] >= 0).any()
    with pytest.raises(ConfigError, match=r" words; .*task\.draw"):
        MaskedText(uniter_tiny()).corrupt(careful, generator)


def test_captions_and_texts_are_averaged_apart():
    """Rows with regions and rows without each have a mean of their own, whatever the other ones are."""
    torch.manual_seed(0)
    model, given = uniter_tiny(), text(6, 20)
    mask = torch.tensor([1, 1, 0, 0, 0, 0], dtype=torch.bool)[:, None]
    regions = PaddedRegions(
        features=torch.zeros(6, 1, 64),
        boxes=torch.zeros(6, 1, 4),
        mask=mask,
        image_index=torch.zeros(6, 1, dtype=torch.int64),
        sizes=torch.ones(6, 2),
    )
    apart, joint = MaskedText(model, apart=True), MaskedText(model)
    joint.load_state_dict(apart.state_dict())
    sample = apart.corrupt(Sample(inputs=Inputs(text=given, regions=regions)), None)
    encoding = Encoding(text=torch.randn(6, 20, 48))
    losses = apart(model, encoding, sample)
    for part, rows in (("captions", slice(2)), ("texts", slice(2, 6))):
        some = Sample(
            inputs=Inputs(text=given.map(lambda one, rows=rows: one[rows])), words=sample.words[rows]
        )
        alone = joint(model, Encoding(text=encoding.text[rows]), some)
        torch.testing.assert_close(losses[part], alone["words"])
        assert len(apart.grade(model, encoding, sample)[part].scores) == (some.words >= 0).sum()
    blind = Sample(inputs=Inputs(text=given), words=sample.words)
    assert apart(model, encoding, blind)["captions"] == 0
