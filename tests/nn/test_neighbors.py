"""Exact search among stored vectors, and votes of what it finds."""

import pytest
import torch

from diptych.errors import ConfigError
from diptych.nn import nearest_cases, votes


def test_the_nearest_are_those_of_a_full_sort():
    generator = torch.Generator().manual_seed(0)
    queries, cases = (torch.randn(n, 7, generator=generator) for n in (5, 40))
    best, rows = nearest_cases(queries, cases, 6)
    cosines = torch.cosine_similarity(queries[:, None], cases[None], dim=-1)
    expected = cosines.sort(dim=1, descending=True)
    assert torch.equal(rows, expected.indices[:, :6])
    torch.testing.assert_close(best, expected.values[:, :6])
    raw, _ = nearest_cases(queries, cases, 6, unit=False)
    torch.testing.assert_close(raw, (queries @ cases.T).sort(dim=1, descending=True).values[:, :6])


def test_of_equal_cases_the_first_stored_one_comes_first():
    cases = torch.eye(3)[[0, 1, 0, 0, 2]]
    _, rows = nearest_cases(torch.eye(3)[:1], cases, 3)
    assert rows.tolist() == [[0, 2, 3]]


def test_what_may_not_be_found_is_left_out_and_the_rest_says_so():
    cases = torch.eye(3)
    among = torch.tensor([[False, True, False]])
    best, rows = nearest_cases(torch.ones(1, 3), cases, 2, among=among)
    assert rows.tolist() == [[1, -1]]
    assert best[0, 1] == -torch.inf
    assert nearest_cases(torch.ones(1, 3), cases, 9)[1].shape == (1, 3)


@pytest.mark.parametrize(
    ("weighting", "by", "expected"),
    [
        ("mean", "similarity", (0.9 - 0.6 + 0.3) / 3),
        ("arithmetic", "similarity", (3 * 0.9 - 2 * 0.6 + 0.3) / 6),
        ("mean", "labels", 2 / 3),
        ("arithmetic", "labels", 4 / 6),
    ],
)
def test_votes_add_up_to_the_score(weighting, by, expected):
    similarities, positive = torch.tensor([[0.9, 0.6, 0.3]]), torch.tensor([[True, False, True]])
    shares = votes(similarities, positive, weighting=weighting, by=by)
    assert shares.sum().item() == pytest.approx(expected)


def test_far_neighbors_and_those_not_found_have_no_vote():
    similarities = torch.tensor([[0.9, 0.2, -torch.inf], [0.1, 0.0, -1.0]])
    shares = votes(similarities, torch.ones(2, 3).bool(), weighting="mean", least=0.5)
    torch.testing.assert_close(shares, torch.tensor([[0.9, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(ConfigError, match="median"):
        votes(similarities, torch.ones(2, 3).bool(), weighting="median")
