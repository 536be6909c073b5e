import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.train.averaging import EMA, AnnealSWA, Average, Averaging, JumpSWA
from diptych.train.schedules import linear

BASE = 1e-5


def rates(flavor: Averaging, total: int) -> list[float]:
    return [flavor.rate(linear(warmup=0.1), step, total, BASE) / BASE for step in range(total)]


def joined(flavor: Averaging, total: int) -> list[int]:
    steps: list[int] = []
    for done in range(1, total + 1):
        if flavor.share(done, total, len(steps)) is not None:
            steps.append(done)
    return steps


def test_jump_swa_has_the_published_rates_and_steps():
    forty, hundred = rates(JumpSWA(), 40), rates(JumpSWA(), 100)
    assert forty[:6] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.97222], abs=5e-6)
    assert forty[28:30] == pytest.approx([0.33333, 0.30556], abs=5e-6)
    assert forty[30:] == [1.0] * 10
    assert hundred[74] == pytest.approx(0.28889, abs=5e-6)
    assert hundred[75:] == [1.0] * 25
    assert joined(JumpSWA(), 40) == [35, 40]
    assert joined(JumpSWA(), 100) == [80, 85, 90, 95, 100]
    assert len(joined(JumpSWA(), 5370)) == 269


def test_anneal_swa_has_the_published_rates_and_steps():
    forty, hundred = rates(AnnealSWA(), 40), rates(AnnealSWA(), 100)
    published = [0.30556, 0.27778, 0.25, 0.26835, 0.32162, 0.40458, 0.50912, 0.625, 0.74088, 0.84542, 0.92838]
    assert forty[29:] == pytest.approx(published, abs=5e-6)
    published = [0.27778, 0.26667, 0.28461, 0.33669, 0.41781, 0.52003, 0.63333, 0.74664, 0.84885, 0.92997]
    assert hundred[75:] == pytest.approx([*published, 0.98205, *[1.0] * 14], abs=5e-6)
    assert joined(AnnealSWA(), 40) == list(range(32, 41))
    assert len(joined(AnnealSWA(), 5370)) == 1342


def test_anneal_swa_brings_a_faster_group_down_to_its_rate():
    flavor = AnnealSWA(lr=BASE)
    head = [flavor.rate(linear(warmup=0.1), step, 40, 500 * BASE) for step in range(40)]
    assert head[31] == pytest.approx(125 * BASE)
    assert head[32:] == sorted(head[32:], reverse=True)
    assert flavor.rate(linear(warmup=0.1), 99, 100, 500 * BASE) == pytest.approx(BASE)


def weights(*values: float) -> nn.Linear:
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight.data = torch.tensor([values])
    return layer


def test_swa_is_the_plain_mean():
    average = Average()
    for done, value in enumerate((2.0, 4.0, 9.0), 32):
        average.join(weights(value), AnnealSWA().share(done, 40, average.count))
    assert average.mean["weight"].item() == pytest.approx(5.0)


def test_ema_warms_up_to_its_decay():
    flavor = EMA(decay=0.5)
    assert flavor.share(1, 9, 0) == 1.0
    assert flavor.share(2, 9, 1) == pytest.approx(1 - 2 / 11)
    assert flavor.share(99, 100, 98) == 0.5


def test_mean_is_kept_in_float32_and_stands_in_for_the_weights():
    layer = weights(1.0, 2.0).bfloat16()
    average = Average()
    average.join(layer, 1.0)
    layer.weight.data += 2
    average.join(layer, 0.5)
    assert average.mean["weight"].dtype == torch.float32
    with average.inside(layer):
        assert layer.weight.tolist() == [[2.0, 3.0]]
    assert layer.weight.tolist() == [[3.0, 4.0]]


def test_an_empty_mean_changes_nothing():
    layer = weights(1.0)
    with Average().inside(layer):
        assert layer.weight.item() == 1.0


def test_state_survives():
    average, again = Average(), Average()
    average.join(weights(3.0), 1.0)
    again.load_state_dict(average.state_dict(), torch.device("cpu"))
    again.join(weights(5.0), 0.5)
    assert (again.count, again.mean["weight"].item()) == (2, 4.0)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"averaging\.start is 1\.5"):
        JumpSWA(start=1.5)
    with pytest.raises(ConfigError, match=r"averaging\.decay is 1"):
        EMA(decay=1.0)
