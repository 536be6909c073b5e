import pytest

import diptych.models
from diptych.errors import ConfigError
from diptych.nodes import parameters_of
from diptych.recipe.call import call


def test_an_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"uniter_tiny .*'dropuot'\. .* 'dropout'\?"):
        call({"_target_": "diptych.models.uniter_tiny", "dropuot": 0.5})
    with pytest.raises(ConfigError, match="text_features"):
        call({"_target_": "diptych.models.text_bert_tiny", "text_feature": 5})
    with pytest.raises(ConfigError, match="no_such"):
        call({"_target_": "diptych.models.no_such"})


def test_nodes_within_nodes_are_called_and_partial_ones_wait() -> None:
    inner = {"_target_": "builtins.dict", "answers": ["red", "two"]}
    made = call({"_target_": "builtins.dict", "parts": [inner], "beside": {"x": inner}}, more=1)
    assert made == {
        "parts": [{"answers": ["red", "two"]}],
        "beside": {"x": {"answers": ["red", "two"]}},
        "more": 1,
    }
    later = call({"_target_": "builtins.dict", "_partial_": True, "x": inner})
    assert later(y=2) == {"x": {"answers": ["red", "two"]}, "y": 2}
    assert call(None) is None
    with pytest.raises(ConfigError, match="_target_"):
        call({"lr": 0.1})


@pytest.mark.parametrize(
    "key", ["heads", "dim", "hidden", "layers", "vocab_size", "feature_dim", "max_positions"]
)
@pytest.mark.parametrize("size", [0, -4, 1.5, "4", True, None])
def test_sizes_of_models_are_whole_numbers_from_one(key: str, size: object) -> None:
    with pytest.raises(ConfigError, match=rf"\b{key} .*{size!r}; "):
        call({"_target_": "diptych.models.uniter_tiny", key: size})


@pytest.mark.parametrize("name", [name for name in diptych.models.__all__ if name.endswith("_tiny")])
def test_every_family_refuses_sizes_below_one(name: str) -> None:
    sizes = [
        key
        for key, kind in parameters_of(getattr(diptych.models, name)).types.items()
        if kind is int and key not in ("tasks", "region_segment", "first_position")
    ]
    assert sizes
    for key in sizes:
        with pytest.raises(ConfigError):
            call({"_target_": f"diptych.models.{name}", key: -4})
