import math

import numpy as np
import pytest
import torch

from diptych.errors import ConfigError
from diptych.train.schedules import constant, cosine, linear, plateau, steps, triangle


def test_linear_follows_the_published_sequence_of_forty_steps():
    factors = [linear(warmup=0.1)(step, 40) for step in range(40)]
    assert factors[:6] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.97222], abs=5e-6)
    assert factors[28:32] == pytest.approx([0.33333, 0.30556, 0.27778, 0.25], abs=5e-6)


def test_linear_warmup_is_not_rounded():
    factors = [linear(warmup=0.1)(step, 45) for step in range(6)]
    assert factors == pytest.approx([0, 1 / 4.5, 2 / 4.5, 3 / 4.5, 4 / 4.5, 40 / 40.5])


def test_warmup_of_one_or_more_counts_steps():
    assert [linear(warmup=2)(step, 10) for step in (0, 1, 2, 6, 10)] == [0, 0.5, 1, 0.5, 0]
    assert [constant(warmup=4)(step, 10) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]


def test_cosine_ends_at_its_floor():
    schedule = cosine(warmup=0.0, floor=0.1)
    assert schedule(0, 10) == pytest.approx(1)
    assert schedule(5, 10) == pytest.approx(0.55)
    assert schedule(10, 10) == pytest.approx(0.1)
    assert cosine(warmup=5)(10, 25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_triangle_peaks_in_the_middle():
    assert [triangle()(step, 10) for step in (0, 5, 10)] == [0, 1, 0]


def test_negative_warmup_is_refused():
    with pytest.raises(ConfigError, match=r"schedule.warmup is -1"):
        linear(warmup=-1)


def test_whole_warmup_is_cut_to_whole_steps():
    rises = {whole: cosine(warmup=0.05, whole=whole)(114, 4568) for whole in (False, True)}
    assert rises == pytest.approx({False: 114 / 228.4, True: 0.5})
    assert linear(warmup=0.05, whole=True)(0, 19) == 1  # no step is left of it


def test_steps_go_down_at_their_milestones():
    schedule = steps(milestones=[5, 7], factor=0.1, warmup=2)
    expected = [0, 0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [schedule(step, 9) for step in range(9)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "expected"), [("linear", [0.2, 0.4, 0.6, 0.8, 1, 0.1]), ("constant", [0.2] * 4 + [1, 0.1])]
)
def test_warmup_of_steps_may_begin_above_zero(method, expected):
    schedule = steps(milestones=[5], warmup=4, warmup_factor=0.2, warmup_method=method)
    assert [schedule(step, 10) for step in range(6)] == pytest.approx(expected)


def test_an_unknown_method_of_warmup_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_method is 'cubic'"):
        steps(milestones=[5], warmup_method="cubic")


@pytest.mark.parametrize(("patience", "cooldown"), [(1, 2), (0, 0), (2, 1)])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_drops_when_torch_does(mode, patience, cooldown):
    values = np.random.default_rng(7).random(60).round(1) + np.linspace(0, 0.3, 60)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=patience, cooldown=cooldown, eps=0
    )
    ours = plateau(factor=0.5, patience=patience, cooldown=cooldown)
    seen = set()
    for count, value in enumerate(values, 1):
        theirs.step(value)
        rate = ours.drop(values[:count].tolist(), minimized=mode == "min")
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        seen.add(rate)
    assert len(seen) > 3


def test_a_factor_that_would_raise_the_rate_is_refused():
    with pytest.raises(ConfigError, match=r"factor=1\.5"):
        plateau(factor=1.5)
