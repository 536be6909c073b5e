"""What tells the weight files of one family from all others, and what becomes of them.

Each converter describes its family as data, in these words; `recognize` reads the descriptions.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from diptych.convert.rules import Drop, Table, Weights
from diptych.convert.settings import Settings, Use

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
        task: what its tensors, the width of the pooled vector and the whole file become: the node of a task,
            and the number of classes or answers, 0 where the task names none; None where the tensors are
            those of another head.
    """

    name: str
    table: Table
    task: "Callable[[Weights, int, Found], tuple[Node, int] | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of models, as its files show it.

    Args:
        title: the family and who writes such files, for people.
        anchor: a name of the backbone; what precedes it in a file is the prefix.
        inner: what the table puts in place of the prefix.
        beside, within: beginnings of names outside of the prefix that belong to the backbone, and of names
            below it that do not.
        pattern: what names of a backbone without a prefix look like.
        training: what names of an optimizer look like that lie among the weights.
        marks: names of the backbone that every file of the family has, and that together no other has; `|`
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
    fill: Callable[..., object]
    table: Table
    sizes: "Callable[[Parted], Node]"
    marks: frozenset[str]
    anchor: str = "embeddings.word_embeddings.weight"
    inner: str = ""
    beside: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    training: re.Pattern[str] | None = None
    builders: Mapping[tuple[int, int], str]
    heads: tuple[Head, ...] = ()
    drops: tuple[Drop, ...] = ()
    processor: Callable[[Use], Settings] = lambda _: {}
    regions: bool = True
    places: int = 0
    benchmark: Callable[[Use], tuple[str, str] | None] = lambda _: None
    habits: Mapping[str, str] = field(default_factory=dict)

    def part(self, weights: Weights) -> "Parted | None":
        """Backbone and heads of a file; None where it has no backbone, or several."""
        training = {name for name in weights if self.training is not None and self.training.fullmatch(name)}
        lasting = {name: one for name, one in weights.items() if name not in training}
        ends = [name for name in lasting if name == self.anchor or name.endswith(f".{self.anchor}")]
        if len(ends) != 1:
            return None
        prefix = ends[0].removesuffix(self.anchor)
        outer = prefix[: prefix.rfind(".", 0, -1) + 1] if prefix else ""
        backbone, rest = {}, {}
        for name, one in lasting.items():
            below = name.startswith(prefix) if self.pattern is None else bool(self.pattern.match(name))
            own = self.inner + name.removeprefix(prefix)
            if below and not (self.within and own.startswith(self.within)):
                backbone[own] = one
            elif self.beside and name.startswith(self.beside):
                backbone[name] = one
            else:
                rest[own if below else name] = one
        outer = outer if not self.within and any(name.startswith(outer) for name in rest) else ""
        return Parted(
            prefix=prefix,
            outer=outer,
            backbone=backbone,
            rest={name.removeprefix(outer): one for name, one in rest.items()},
            training=sorted(training),
        )

    def original(self, name: str, *, prefix: str, outer: str, head: bool) -> str:
        """A name that `part` gave, as it stood in the file."""
        inside = name.startswith(self.within) if head else not name.startswith(self.beside)
        if inside:
            return prefix + name.removeprefix(self.inner)
        return outer + name if head else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """A file's tensors without their prefixes.

    Args:
        prefix: of the backbone.
        outer: of what lies beside it.
        training: names that an optimizer left.
    """

    prefix: str
    outer: str
    backbone: Weights
    rest: Weights
    training: list[str]

    def lacks(self, marks: frozenset[str]) -> list[str]:
        """The marks that it does not bear."""
        return sorted(mark for mark in marks if not any(name in self.backbone for name in mark.split("|")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a file turned out to be."""

    family: Family
    parted: Parted
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
