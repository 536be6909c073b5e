"""What tells the weight files of one family from all others, and what becomes of them.

Each converter describes its family as data, in these words; `recognize` reads the descriptions.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diptych.convert.rules import Drop, Table, Weights, load_into
from diptych.convert.settings import Benchmark, Settings, Use
from diptych.convert.split import Backbone, Split
from diptych.errors import CheckpointMismatch

Node = dict[str, Any]
PRETRAINING = (
    Drop("cls.predictions.decoder", "the word embedding again, to which the decoder of words is tied"),
    Drop("cls.predictions", "the head of masked words: pre-training"),
    Drop("cls.seq_relationship", "the head of matching texts: pre-training"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Weights beside the backbone that become a task.

    Args:
        name: for people; begins most of its names.
        table: from its names to those of the task.
        task: of its tensors, the width of the pooled vector and the whole file, returns the configuration of
            the task and the number of classes or answers (0 if it has none), or None if these tensors are a
            different head.
    """

    name: str
    table: Table
    task: "Callable[[Weights, int, RecognizedCheckpoint], tuple[Node, int] | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names in one kind of file, and the way from them into a model.

    Args:
        table: from the names of the backbone to those of the model.
        adapt: changes a split file to fit the model where a table cannot say it.
        advice: ends the error about a file that has no such backbone.
    """

    backbone: Backbone = field(default_factory=Backbone)
    table: Table
    adapt: Callable[[Any, Split], Split] = lambda _, split: split
    advice: str = ""

    def split(self, weights: Weights, *, where: object) -> Split:
        """Backbone and heads of a file.

        Raises:
            CheckpointMismatch: it has no backbone of this family, or several.
        """
        if (split := self.backbone.split(weights)) is None:
            raise CheckpointMismatch(
                f"{where}: {len(self.backbone.keys(weights))} names end with {self.backbone.key}; expected "
                f"exactly one. The file holds {len(weights)} tensors, first {', '.join(list(weights)[:3])}."
                f"{self.advice}"
            )
        return split

    def fill(self, model: nn.Module, split: Split, *, where: object) -> dict[str, Tensor]:
        """Fill a model and return the weights of heads, which belong to tasks.

        Raises:
            CheckpointMismatch: the weights are another family's, or of other sizes.
        """
        split = self.adapt(model, split)
        load_into(model, split.backbone, self.table, where=where)
        return dict(split.heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Layout):
    """One family of models, as its files show it.

    Args:
        title: the family and who writes such files, for people.
        starts: files of other families that such a model may be filled from.
        required: names of the backbone that every file of the family has, and that together no other has; `|`
            stands between names of which a file has one.
        sizes: the arguments of `model` read off the shapes; None for what shapes do not say.
        builders: functions of `diptych.models` by width and number of layers of the text.
        heads: the first one that fits becomes the task.
        drops: what else may lie beside the backbone, and why it is left out.
        processor: settings of the processor that are not diptych's defaults; `lowercase` is its tokenizer's.
        regions: whether the model reads any.
        places: rows of the position table behind a text that other parts of the sequence take.
        benchmark: what a head of two classes was trained for, and how one knows; None where nothing tells.
        habits: settings of the model that are habits of a file's authors, and how one knows.
    """

    name: str
    title: str
    model: type[nn.Module]
    starts: tuple[Layout, ...] = ()
    sizes: Callable[[Split], Node]
    required: frozenset[str]
    builders: Mapping[tuple[int, int], str]
    heads: tuple[Head, ...] = ()
    drops: tuple[Drop, ...] = ()
    processor: Callable[[Use], Settings] = lambda _: {}
    regions: bool = True
    places: int = 0
    benchmark: Callable[[Use], tuple[Benchmark, str] | None] = lambda _: None
    habits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognizedCheckpoint:
    """What a file turned out to be."""

    family: Family
    split: Split
    sizes: Node


def count(weights: Weights, pattern: str) -> int:
    """How many numbers stand for `{}` in the names that begin with the pattern."""
    numbered = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)") + r"\D")
    return len({found[1] for name in weights if (found := numbered.match(name))})


def heads_of(dim: int, each: int = 64) -> int | None:
    """The number of attention heads where each is so wide, as published; None where that cannot be."""
    return None if dim % each else dim // each


def bert_sizes(weights: Weights) -> Node:
    """What the shapes of a BERT say."""
    words = weights["embeddings.word_embeddings.weight"]
    return {
        "vocab_size": len(words),
        "dim": words.shape[1],
        "heads": heads_of(words.shape[1]),
        "hidden": len(weights["encoder.layer.0.intermediate.dense.weight"]),
        "layers": count(weights, "encoder.layer.{}."),
        "max_positions": len(weights["embeddings.position_embeddings.weight"]),
        "segments": len(weights["embeddings.token_type_embeddings.weight"]),
    }
