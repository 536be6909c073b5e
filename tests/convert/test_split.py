import re
from dataclasses import replace

import pytest
import torch

from diptych.convert import FAMILIES
from diptych.convert.family import Layout
from diptych.convert.split import Backbone
from diptych.errors import CheckpointMismatch

ONE = torch.ones(1)
BY_NAME = {family.name: family for family in FAMILIES}
VLBERT = Backbone(
    key="word_embeddings.weight",
    root="vlbert.",
    extra_prefixes=("object_linguistic_embeddings.",),
    head_prefixes=("vlbert.mlm_head.",),
)


def names(*wanted):
    return dict.fromkeys(wanted, ONE)


def both_ways(backbone, weights):
    """Backbone and heads of a file, whose names all come back."""
    split = backbone.split(weights)
    place = {"prefix": split.prefix, "head_prefix": split.head_prefix}
    back = [backbone.original(name, head=False, **place) for name in split.backbone]
    back += [backbone.original(name, head=True, **place) for name in split.heads]
    assert sorted([*back, *split.optimizer]) == sorted(weights)
    return list(split.backbone), list(split.heads)


def test_the_example_of_the_docstring():
    weights = names(
        "model.vlbert.word_embeddings.weight",
        "model.vlbert.mlm_head.predictions.bias",
        "object_linguistic_embeddings.weight",
        "final_mlp.1.weight",
    )
    backbone, heads = both_ways(VLBERT, weights)
    assert backbone == ["vlbert.word_embeddings.weight", "object_linguistic_embeddings.weight"]
    assert heads == ["vlbert.mlm_head.predictions.bias", "final_mlp.1.weight"]


def test_the_example_is_what_vlbert_says():
    own = BY_NAME["vlbert"].backbone
    assert (own.key, own.root) == (VLBERT.key, VLBERT.root)
    assert set(VLBERT.extra_prefixes) < set(own.extra_prefixes)
    assert set(VLBERT.head_prefixes) < set(own.head_prefixes)


@pytest.mark.parametrize(
    ("prefix", "head", "head_prefix"),
    [("", None, ""), ("bert.", "cls.bias", ""), ("a.bert.", "cls.bias", ""), ("a.bert.", "a.cls.bias", "a.")],
)
def test_the_key_shows_the_prefix_and_heads_lose_the_module_around_it(prefix, head, head_prefix):
    key = f"{prefix}embeddings.word_embeddings.weight"
    split = Backbone().split(names(key, f"{prefix}pooler.bias", *filter(None, [head])))
    assert (split.prefix, split.head_prefix) == (prefix, head_prefix)
    both_ways(Backbone(), names(key, *filter(None, [head])))
    assert list(split.backbone) == ["embeddings.word_embeddings.weight", "pooler.bias"]
    assert list(split.heads) == ["cls.bias"] * (head is not None)


def test_names_of_an_optimizer_are_set_aside():
    backbone = Backbone(key="word", pattern=re.compile("word|layer_"), optimizer=re.compile(r".*_moment\d"))
    split = backbone.split(names("word", "layer_0.w", "word_moment1", "head.w"))
    assert (list(split.backbone), list(split.heads)) == (["word", "layer_0.w"], ["head.w"])
    assert split.optimizer == ["word_moment1"]


def test_a_file_without_a_backbone_or_with_two_is_a_mismatch():
    layout = Layout(backbone=Backbone(key="e.w"), table=(), advice=" Look elsewhere.")
    for weights, count in ((names("a"), 0), (names("a.e.w", "b.e.w"), 2)):
        assert layout.backbone.split(weights) is None
        with pytest.raises(CheckpointMismatch, match=rf"^file: {count} .*e\.w.* Look elsewhere"):
            layout.split(weights, where="file")


def test_what_is_missing_counts_one_of_several_names_as_enough():
    split = Backbone(key="a").split(names("a", "b"))
    assert split.missing(frozenset({"a", "b|c"})) == []
    assert split.missing(frozenset({"c|d", "b"})) == ["c|d"]


def test_parts_of_the_backbone_move_to_the_heads():
    split = Backbone(key="a").split(names("a", "pooler.w"))
    moved = split.moved(("pooler.",))
    assert (list(moved.backbone), list(moved.heads)) == (["a"], ["pooler.w"])
    assert replace(moved, backbone=split.backbone, heads=split.heads) == split
