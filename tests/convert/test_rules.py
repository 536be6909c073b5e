import pytest
import torch
from torch import nn

from diptych.convert.rules import (
    Drop,
    Keep,
    bert_layer,
    bert_text,
    convert,
    load_into,
    merge,
    rename,
    restore,
    row,
    split,
    transpose,
)
from diptych.errors import CheckpointMismatch

TABLE = (
    rename("old.{}.dense", "new.layers.{}"),
    split("in_proj_{}", ("query{}", "key{}", "value{}")),
    merge(("left.weight", "right.weight"), "both.weight"),
    transpose("paddle.w_0", "linear.weight"),
    row("mask.weight", "hidden", index=1, rows=2),
    Drop("position_ids", "a counter"),
    Keep("extra", "new here"),
)


def source():
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "old.0.dense.weight": (2, 3),
        "old.0.dense.bias": (2,),
        "old.11.dense.weight": (4, 3),
        "in_proj_5": (6, 2),
        "left.weight": (2, 2),
        "right.weight": (2, 2),
        "paddle.w_0": (3, 5),
    }
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return weights | {"mask.weight": torch.stack([torch.zeros(4), torch.ones(4)])}


def test_every_kind_of_rule():
    given = source()
    shapes = {
        "new.layers.0.weight": (2, 3),
        "new.layers.0.bias": (2,),
        "new.layers.11.weight": (4, 3),
        "query5": (2, 2),
        "key5": (2, 2),
        "value5": (2, 2),
        "both.weight": (4, 2),
        "linear.weight": (5, 3),
        "hidden": (4,),
        "extra.bias": (1,),
    }
    sizes = {name: torch.Size(shape) for name, shape in shapes.items()}
    got = convert(given | {"position_ids": torch.arange(3)}, TABLE, shapes=sizes, where="file")
    assert got.keys() == shapes.keys() - {"extra.bias"}
    torch.testing.assert_close(got["new.layers.11.weight"], given["old.11.dense.weight"])
    torch.testing.assert_close(got["key5"], given["in_proj_5"][2:4])
    torch.testing.assert_close(got["both.weight"], torch.cat([given["left.weight"], given["right.weight"]]))
    torch.testing.assert_close(got["linear.weight"], given["paddle.w_0"].T)
    torch.testing.assert_close(got["hidden"], torch.ones(4))
    back = restore(got, TABLE)
    assert back.keys() == given.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in given.items())


def test_mismatch_lists_everything_that_is_amiss():
    weights = {"a.weight": torch.ones(2), "b.weight": torch.ones(3), "strange": torch.ones(1)}
    shapes = {name: torch.Size([2]) for name in ("x.weight", "y.weight", "z.weight")}
    with pytest.raises(CheckpointMismatch) as error:
        convert(weights, [rename("a", "x"), rename("b", "y")], shapes=shapes, where="some.pt")
    message = str(error.value)
    assert message.startswith("some.pt: ")
    assert "1 unfilled: z.weight; 1 unused: strange; 1 of the wrong shape: y.weight (3,)" in message
    assert "(2,)" in message


def test_a_rule_may_not_fill_what_the_model_lacks():
    with pytest.raises(CheckpointMismatch, match=r"1 unused: x\.weight"):
        convert({"a.weight": torch.ones(2)}, [rename("a", "x")], shapes={}, where="file")


def test_two_rules_may_not_fill_one_name():
    weights = {"a.weight": torch.ones(2), "b.weight": torch.ones(2)}
    with pytest.raises(CheckpointMismatch, match=r"\bx\.weight"):
        convert(weights, [rename("a", "x"), rename("b", "x")], shapes={}, where="file")


def test_half_of_a_merge_is_unused_not_lost():
    with pytest.raises(CheckpointMismatch, match=r"1 unused: left\.weight"):
        convert({"left.weight": torch.ones(2, 2)}, TABLE, shapes={}, where="file")


def test_a_tensor_of_an_impossible_shape_is_a_mismatch():
    with pytest.raises(CheckpointMismatch, match=r"^file: "):
        convert({"mask.weight": torch.ones(1, 4)}, TABLE, shapes={"hidden": torch.Size([4])}, where="file")


def test_patterns_stop_at_dots():
    shapes = {"x.weight": torch.Size([1])}
    with pytest.raises(CheckpointMismatch, match=r"unfilled: x\.weight; 1 unused: abc\.weight"):
        convert({"abc.weight": torch.ones(1)}, [rename("ab", "x")], shapes=shapes, where="file")


def test_load_into_leaves_a_module_untouched_on_error():
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(CheckpointMismatch):
        load_into(module, {"a.weight": torch.ones(2, 2)}, [rename("a.weight", "weight")], where="file")
    assert torch.equal(module.weight, before)
    load_into(
        module,
        {"a.weight": torch.ones(2, 2, dtype=torch.float16), "a.bias": torch.zeros(2)},
        [rename("a.weight", "weight"), rename("a.bias", "bias")],
        where="file",
    )
    assert torch.equal(module.weight, torch.ones(2, 2))


def test_gradient_of_an_unknown_name_has_no_way_back():
    with pytest.raises(CheckpointMismatch, match=r"^1 .*: other\."):
        restore({"other": torch.ones(1)}, TABLE)


def test_shared_tables_lead_nowhere_twice():
    rules = (*bert_text("e", "t"), *bert_layer("l.{}", "m.{}"))
    assert len({rule.targets for rule in rules}) == len({rule.sources for rule in rules}) == len(rules)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (torch.tensor([1, float("nan")]), r"\b1 .*NaN.*: first\.bias"),
        (torch.tensor([1, -float("inf")]), r"NaN or infinity: first\.bias"),
        (torch.tensor([1, float("nan")]).to(torch.float8_e5m2), "NaN"),
        (torch.ones(2, dtype=torch.complex64), r"complex.*: first\.bias"),
        (torch.ones(2, dtype=torch.int8), r"\b1 .*integers: bias\b"),
    ],
)
def test_numbers_that_no_model_can_use_are_named(odd, message):
    linear = nn.Linear(2, 2)
    before = linear.weight.clone()
    weights = {"first.weight": torch.zeros(2, 2)}
    table = (rename("first.weight", "weight"), rename("first.bias", "bias"), Drop("second", "unused"))
    with pytest.raises(CheckpointMismatch, match=f"file: .*{message}"):
        load_into(linear, weights | {"first.bias": odd}, table, where="file")
    assert torch.equal(linear.weight, before)
    load_into(linear, weights | {"first.bias": torch.ones(2), "second": odd}, table, where="file")
    assert linear.bias.tolist() == [1, 1]
