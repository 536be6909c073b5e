import torch
from torch.nn import functional as F

from diptych.models import uniter_tiny
from diptych.tasks.objectives import Alignment
from diptych.tasks.objectives.alignment import transport

LENGTHS, COUNTS = torch.tensor([5, 3, 4]), torch.tensor([2, 4, 0])


def states():
    generator = torch.Generator().manual_seed(0)
    text, regions = (torch.randn(3, many, 48, generator=generator) for many in (5, 4))
    return text, torch.arange(5) < LENGTHS[:, None], regions, torch.arange(4) < COUNTS[:, None]


def test_each_row_is_that_of_ipot_without_padding():
    text, text_mask, regions, region_mask = states()
    distance = Alignment(uniter_tiny()).distance(text, text_mask, regions, region_mask)
    for row, (words, many) in enumerate(zip(LENGTHS, COUNTS, strict=True)):
        if not many:
            assert distance[row] == 0
            continue
        x, y = F.normalize(text[row, :words], dim=-1), F.normalize(regions[row, :many], dim=-1)
        cost = 1 - x @ y.T
        kernel, plan, sigma = (-cost / 0.5).exp(), torch.ones_like(cost), torch.ones(words) / words
        for _ in range(50):
            flow = kernel * plan
            delta = 1 / (many * (flow.T @ sigma))
            sigma = 1 / (words * (flow @ delta))
            plan = sigma[:, None] * flow * delta
        torch.testing.assert_close(distance[row], (cost * plan).sum(), atol=1e-6, rtol=1e-5)


def test_a_plan_moves_everything_once():
    text, text_mask, regions, region_mask = states()
    cost = torch.cdist(text, regions)
    plan = transport(cost, text_mask, region_mask, beta=0.5, iterations=200)
    sums = plan.sum(2)
    torch.testing.assert_close(sums[:2], (text_mask / LENGTHS[:, None])[:2], atol=1e-3, rtol=0)
    assert not plan[~(text_mask[:, :, None] & region_mask[:, None])].any()


def test_gradients_are_finite_where_there_is_nothing_to_align():
    text, text_mask, regions, region_mask = states()
    text.requires_grad_()
    Alignment(uniter_tiny()).distance(text, text_mask, regions, region_mask).sum().backward()
    assert text.grad.isfinite().all()
    assert not text.grad[2].any()
