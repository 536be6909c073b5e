import math

import pytest
import torch
from torch import nn
from training_toy import Bag, Compare

from diptych.errors import ConfigError
from diptych.models import ernievil_base
from diptych.nn import LayerAverage
from diptych.train.optim import HFAdamW, adam, adamw, bert_adam, hf_adamw, paddle_adam, sgd


def groups_of(factory, model: nn.Module, task: nn.Module) -> dict[str, dict]:
    """Parameter name to the options of its group."""
    names = {id(p): name for part in (model, task) for name, p in part.named_parameters()}
    optimizer = factory(model, task)
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def test_norms_and_vectors_are_not_decayed():
    found = groups_of(adamw(lr=0.1, weight_decay=0.3), Bag(), Compare())
    decayed = {name for name, group in found.items() if group["weight_decay"]}
    assert decayed == {"words.weight", "layers.0.weight", "layers.1.weight", "head.weight"}
    assert set(found) - decayed >= {"norm.weight", "norm.bias", "layers.0.bias", "head.bias", "unused"}


def test_head_has_its_own_rate():
    found = groups_of(adamw(lr=0.1, head_lr_factor=500), Bag(), Compare())
    assert found["head.weight"]["lr"] == pytest.approx(50)
    assert found["words.weight"]["lr"] == found["words.weight"]["initial_lr"] == 0.1


def test_weights_of_layers_learn_like_a_head():
    model = Bag()
    model.average = LayerAverage(2)
    found = groups_of(adamw(lr=0.1, head_lr_factor=500), model, Compare())
    assert found["average.weights"]["lr"] == found["head.weight"]["lr"] == pytest.approx(50)
    assert found["words.weight"]["lr"] == 0.1


def test_layer_decay_shrinks_towards_the_input():
    found = groups_of(adamw(lr=1.0, layer_decay=0.5), Bag(), Compare())
    names = ("words.weight", "layers.0.weight", "layers.1.weight", "head.weight")
    assert [found[name]["lr"] for name in names] == [0.25, 0.5, 1.0, 1.0]


def test_layer_decay_finds_nested_layers_and_what_comes_after_them():
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(3, 2)
            self.encoder = nn.Module()
            self.encoder.layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))
            self.pool = nn.Linear(2, 2, bias=False)

    found = groups_of(adamw(lr=1.0, layer_decay=0.5), Tower(), Compare())
    names = ("embedding", "encoder.layers.0", "encoder.layers.2", "pool")
    assert [found[f"{name}.weight"]["lr"] for name in names] == [0.125, 0.25, 1.0, 1.0]


def test_ernievil_counts_the_layers_of_both_streams():
    with torch.device("meta"):
        model = ernievil_base()
    found = groups_of(paddle_adam(lr=1.0, weight_decay=0.01, layer_decay=0.5), model, Compare())
    powers = {name: round(-math.log2(group["lr"])) for name, group in found.items()}
    assert powers["text.words.weight"] == 19
    assert powers["regions.feature.weight"] == 13
    assert powers["encoder.text_layers.0.attention.query.weight"] == 18
    assert powers["encoder.text_layers.6.attention.query.weight"] == 11
    assert powers["encoder.meetings.0.text_attention.query.weight"] == 12
    assert powers["encoder.text_layers.11.attention.query.weight"] == 1
    assert powers["encoder.vision_layers.5.attention.query.weight"] == 1
    assert powers["pool.text.weight"] == powers["text.norm.weight"] == powers["head.weight"] == 0
    group = found["text.words.weight"]
    assert group["lr"] * group["weight_decay"] == pytest.approx(0.01), "the decay keeps the full rate"


def test_bert_adam_decays_everything_by_its_value_before_the_step():
    parameter = nn.Parameter(torch.tensor([2.0]))
    module = nn.Module()
    module.register_parameter("bias", parameter)
    optimizer = bert_adam(lr=0.1, weight_decay=0.5, eps=0.0)(module, nn.Module())
    parameter.grad = torch.tensor([3.0])
    optimizer.step()
    step = 0.1 * 3 / math.sqrt(0.001 * 9)  # no bias correction
    assert parameter.item() == pytest.approx(2 - 0.1 * (step + 0.5 * 2), rel=1e-5)


def test_layer_decay_needs_layers():
    with pytest.raises(ConfigError, match=r"optim\.layer_decay is 0\.5"):
        adamw(lr=1.0, layer_decay=0.5)(nn.Linear(2, 2), Compare())


def test_shared_and_frozen_parameters_appear_once_or_never():
    model, task = Bag(), Compare()
    task.words = model.words
    model.norm.requires_grad_(False)
    optimizer = adamw(lr=0.1)(model, task)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(params) == len({id(p) for p in params})
    assert id(model.norm.weight) not in {id(p) for p in params}


def test_nothing_to_train_is_an_error():
    model, task = Bag().requires_grad_(False), Compare().requires_grad_(False)
    with pytest.raises(ConfigError, match=r"requires_grad"):
        adamw(lr=0.1)(model, task)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"weight_decay": -1.0}])
def test_impossible_settings_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ConfigError, match=rf"optim\.{name} is {value}"):
        adamw(**{"lr": 0.1, **settings})


def test_hf_adamw_follows_its_formula():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    optimizer = HFAdamW([weight], lr=0.01, weight_decay=0.1, eps=1e-6)
    expected = weight.detach().clone()
    mean, square = torch.zeros_like(expected), torch.zeros_like(expected)
    for count in range(1, 6):
        gradient = torch.randn(4, 3, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        size = 0.01 * math.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        expected = expected - size * mean / (square.sqrt() + 1e-6)
        expected = expected - 0.01 * 0.1 * expected
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-12)


def test_hf_adamw_resumes_from_its_state():
    torch.manual_seed(0)
    gradients = torch.randn(6, 5)

    def steps(optimizer: HFAdamW, weight: nn.Parameter, rows: torch.Tensor) -> None:
        for row in rows:
            weight.grad = row.clone()
            optimizer.step()

    whole, first = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    steps(HFAdamW([whole]), whole, gradients)
    optimizer = HFAdamW([first])
    steps(optimizer, first, gradients[:3])
    second = nn.Parameter(first.detach().clone())
    taken_up = HFAdamW([second])
    taken_up.load_state_dict(optimizer.state_dict())
    steps(taken_up, second, gradients[3:])
    assert torch.equal(whole, second)


def test_adam_adds_the_decay_to_the_gradient():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.ones_(weight.weight)
    optimizer = adam(lr=0.1, weight_decay=0.5)(weight, nn.Identity())
    weight.weight.grad = torch.tensor([[-0.5]])
    optimizer.step()
    assert weight.weight.item() == 1.0  # gradient and decay cancel, which a decoupled decay would not


def test_hf_adamw_is_the_factory_of_the_hf_form():
    optimizer = hf_adamw(lr=0.1)(Bag(), Compare())
    assert isinstance(optimizer, HFAdamW)
    assert optimizer.defaults["eps"] == 1e-6


def test_paddle_adam_decays_by_the_weight_before_the_step_and_the_full_rate():
    model, task = Bag(), nn.Identity()
    factory = paddle_adam(lr=0.1, weight_decay=0.3, layer_decay=0.5)
    found = groups_of(factory, model, task)
    for group in found.values():
        shrunk = group["lr"] * group["weight_decay"]
        assert shrunk == (pytest.approx(0.1 * 0.3) if group["weight_decay"] else 0)
    before = model.words.weight.detach().clone()
    optimizer = factory(model, task)
    gradient = torch.linspace(1, 2, before.numel()).view_as(before)
    model.words.weight.grad = gradient
    optimizer.step()
    step = 0.1 * 0.25 * gradient / (gradient + 1e-8)  # Adam's first
    torch.testing.assert_close(model.words.weight.detach(), before - step - 0.1 * 0.3 * before)


def test_bert_adam_decays_everything_and_corrects_no_bias():
    model, task = Bag(), Compare()
    assert all(group["weight_decay"] for group in groups_of(bert_adam(lr=0.1), model, task).values())
    before = model.norm.weight.detach().clone()
    optimizer = bert_adam(lr=0.1, weight_decay=0.5)(model, task)
    model.norm.weight.grad = torch.full_like(before, 2.0)
    optimizer.step()
    step = 0.1 * (0.2 / (math.sqrt(0.001 * 4) + 1e-6) + 0.5 * before)
    torch.testing.assert_close(model.norm.weight.detach(), before - step)


def test_models_may_count_their_layers_themselves():
    model = Bag()
    model.layer_powers = lambda: {"layers.0": 3, "layers": 1}
    found = groups_of(adamw(lr=1.0, layer_decay=0.5), model, Compare())
    names = ("words.weight", "layers.0.weight", "layers.1.weight", "head.weight")
    assert [found[name]["lr"] for name in names] == [1.0, 0.125, 0.5, 1.0]


@pytest.mark.parametrize("factory", [hf_adamw, sgd])
def test_vl_bert_decays_norms_and_biases_too(factory):
    found = groups_of(factory(lr=0.1, weight_decay=0.3, decay_all=True), Bag(), Compare())
    assert {group["weight_decay"] for group in found.values()} == {0.3}
    found = groups_of(factory(lr=0.1, weight_decay=0.3), Bag(), Compare())
    assert found["norm.weight"]["weight_decay"] == 0


def test_sgd_moves_by_the_running_sum_of_gradients():
    weight = nn.Parameter(torch.zeros(1))
    holder = nn.ParameterList([weight])
    optimizer = sgd(lr=0.1, momentum=0.5)(holder, nn.Identity())
    for _ in range(3):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert weight.item() == pytest.approx(-0.1 * (1 + 1.5 + 1.75))
