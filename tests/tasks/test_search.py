"""Against all sentences of a tiny language, and against a plain beam search over lists."""

from itertools import product

import pytest
import torch

from diptych.errors import ConfigError
from diptych.tasks import Search, beam_search

STOP, VOCABULARY = 0, 4


def language(seed, examples=3):
    """Scores that depend on the whole hypothesis, and on the example; also checks the bookkeeping."""
    table, rows = {}, []

    def row(example, before):
        key = example, *before
        if key not in table:
            generator = torch.Generator().manual_seed(hash((seed, *key)) % 2**31)
            table[key] = 2 * torch.randn(VOCABULARY, generator=generator)
        return table[key]

    def score(ids, parents):
        nonlocal rows
        if not ids.shape[1]:
            rows = [(one, []) for one in range(examples)]
        rows = [rows[parent] for parent in parents.tolist()]
        for (_, before), now in zip(rows, ids.tolist(), strict=True):
            assert before == now[:-1] or not before, "a parent is the hypothesis without its last token"
        rows = [(example, now) for (example, _), now in zip(rows, ids.tolist(), strict=True)]
        return torch.stack([row(example, before) for example, before in rows])

    return row, score


def total(row, example, sentence):
    parts = (
        row(example, sentence[:place]).log_softmax(-1)[token].item() for place, token in enumerate(sentence)
    )
    return sum(parts)


def sentences(longest):
    """All that end in STOP, and those of full length."""
    for length in range(1, longest + 1):
        for words in product(range(1, VOCABULARY), repeat=length - 1):
            yield [*words, STOP]
    yield from map(list, product(range(1, VOCABULARY), repeat=longest))


def plain_beam(row, example, search):
    """The same search, written without tensors."""
    alive, done, room = [([], 0.0)], [], search.beam
    for length in range(1, search.max_length + 1):
        more = [
            ([*words, token], value + row(example, words).log_softmax(-1)[token].item())
            for words, value in alive
            for token in range(VOCABULARY)
        ]
        alive = []
        for words, value in sorted(more, key=lambda one: -one[1])[:room]:
            if words[-1] == STOP or length == search.max_length:
                done.append((search.normalize(value, length), words))
                room -= 1
            else:
                alive.append((words, value))
    return max(done)[1]


def without_stop(sentence):
    return sentence[:-1] if sentence[-1] == STOP else sentence


@pytest.mark.parametrize("penalty", [0, 0.6, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_language_finds_the_best_sentence(seed, penalty):
    row, score = language(seed)
    search = Search(beam=VOCABULARY**3, length_penalty=penalty, max_length=3)
    found = beam_search(score, 3, stop=STOP, search=search)
    for example in range(3):
        best = max(
            sentences(3),
            key=lambda one, example=example: search.normalize(total(row, example, one), len(one)),
        )
        assert found[example] == without_stop(best)


@pytest.mark.parametrize("beam", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_narrow_beam_keeps_the_same_hypotheses_as_a_plain_one(seed, beam):
    row, score = language(seed)
    search = Search(beam=beam, length_penalty=0.6, max_length=5)
    found = beam_search(score, 3, stop=STOP, search=search)
    assert found == [without_stop(plain_beam(row, example, search)) for example in range(3)]


@pytest.mark.parametrize("seed", range(4))
def test_one_hypothesis_is_greedy_search(seed):
    row, score = language(seed)
    (found,) = beam_search(score, 1, stop=STOP, search=Search(max_length=6))
    words = []
    while len(words) < 6 and (best := row(0, words).argmax().item()) != STOP:
        words.append(best)
    assert found == words


def test_examples_are_searched_apart():
    _, score = language(5, examples=4)
    search = Search(beam=3, max_length=6)
    together = beam_search(score, 4, stop=STOP, search=search)
    row, _ = language(5)
    assert together == [without_stop(plain_beam(row, example, search)) for example in range(4)]


def test_the_length_penalty_prefers_longer_sentences():
    def score(ids, parents):
        end = -1.0 if ids.shape[1] == 1 else 1.0  # the end costs most after the first word
        return torch.tensor([[end, 1.0]]).repeat(len(ids), 1)

    def length(alpha):
        search = Search(beam=2, length_penalty=alpha, max_length=9)
        return len(beam_search(score, 1, stop=STOP, search=search)[0])

    assert length(0) == 0 < length(3)


def test_a_sentence_without_end_has_full_length():
    def score(ids, parents):
        return torch.tensor([[-torch.inf, 1.0]]).repeat(len(ids), 1)

    assert beam_search(score, 2, stop=STOP, search=Search(beam=2, max_length=5)) == [[1] * 5] * 2


def test_numbers_out_of_range_are_refused():
    for settings in ({"beam": 0}, {"max_length": 0}, {"length_penalty": -1}):
        with pytest.raises(ConfigError, match=r"0|-1"):
            Search(**settings)
    with pytest.raises(ConfigError, match="not numbers"):
        beam_search(lambda ids, _: torch.full((len(ids), 3), torch.nan), 1, stop=0, search=Search())
