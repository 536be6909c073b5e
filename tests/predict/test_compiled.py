import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from diptych.errors import ConfigError
from diptych.models import uniter_tiny
from diptych.predict import compile_layers
from diptych.types import Inputs, PaddedText


def texts(count: int, length: int) -> Inputs:
    ids = torch.randint(1, 90, (count, length), generator=torch.Generator().manual_seed(count))
    return Inputs(text=PaddedText(ids=ids, mask=ids > 0, segments=torch.zeros_like(ids)))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch's own, at import
def test_scores_stay_and_other_shapes_need_no_further_compilation() -> None:
    from diptych.models.concat import BertTower

    torch.compiler.reset()
    counters.clear()  # of other tests in this process
    torch.manual_seed(0)
    tower = BertTower(16, vocab_size=90, width=32, heads=2, hidden=64, layers=4).eval()
    batches, took = [texts(3, 9), texts(5, 21), texts(8, 14)], list[float]()

    def run() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [tower.encoder(tower.text(one.text), one.text.mask) for one in batches]

    expected = run()
    assert compile_layers(tower, took.append) == 4
    got = run()[:1]
    graphs = counters["stats"]["unique_graphs"]
    got += run()[1:]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    # four layers and three shapes, but one class
    assert 1 <= graphs <= 2
    assert counters["stats"]["unique_graphs"] == graphs
    assert not took  # the tower itself was not called


def test_the_first_call_is_timed_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: None)
    model, took = nn.Sequential(nn.ModuleList([nn.ReLU(), nn.ReLU()])), list[float]()
    monkeypatch.setattr(nn.ModuleList, "forward", lambda self, x: x, raising=False)
    model.weight = nn.Parameter(torch.zeros(1))
    assert compile_layers(model, took.append) == 2
    model(torch.zeros(1)), model(torch.zeros(1))
    assert len(took) == 1
    assert took[0] >= 0


def test_a_model_without_equal_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear"):
        compile_layers(nn.Linear(2, 2))


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        compile_layers(uniter_tiny())
