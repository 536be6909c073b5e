"""Descriptions of the families of weight files.

Each converter describes its family as data with the classes here; `recognize` reads the descriptions.
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
from diptych.text import BytePair, SentencePiece, WordPiece

Node = dict[str, Any]
PRETRAINING = (
    Drop("cls.predictions.decoder", "a copy of the word embedding, to which the decoder of words is tied"),
    Drop("cls.predictions", "the head of masked words: pre-training"),
    Drop("cls.seq_relationship", "the head of matching texts: pre-training"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A task head in the files of a family.

    Args:
        name: name for users; most of the tensors' names begin with it.
        table: rules from the names of the tensors to those of the task.
        task: function of the tensors, the width of the pooled vector and the whole file. It returns the
            config of the task and its number of classes or answers (0 if it has none), or None if these
            tensors are a different head.
    """

    name: str
    table: Table
    task: "Callable[[Weights, int, RecognizedCheckpoint], tuple[Node, int] | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names in one kind of file, and how they become the names of a model.

    Args:
        backbone: finds the backbone in a file.
        table: rules from the names of the backbone to those of the model.
        adapt: function of the model and the split file that changes what a table cannot express.
        advice: last sentence of the error about a file without such a backbone.
    """

    backbone: Backbone = field(default_factory=Backbone)
    table: Table
    # A function and not a rule, because it depends on the sizes of the model, too.
    adapt: Callable[[Any, Split], Split] = lambda _, split: split
    advice: str = ""

    def split(self, weights: Weights, *, where: object) -> Split:
        """Split the tensors of a file into backbone and heads.

        Raises:
            CheckpointMismatch: the file has no backbone of this family, or several.
        """
        if (split := self.backbone.split(weights)) is None:
            raise CheckpointMismatch(
                f"{where}: {len(self.backbone.keys(weights))} names end with {self.backbone.key}; expected "
                f"exactly one. The file has {len(weights)} tensors, first {', '.join(list(weights)[:3])}."
                f"{self.advice}"
            )
        return split

    def fill(self, model: nn.Module, split: Split, *, where: object) -> dict[str, Tensor]:
        """Fill a model and return the weights of heads, which belong to tasks.

        Raises:
            CheckpointMismatch: the weights belong to another family, or have other sizes.
        """
        # Adapt first: it may move tensors to the heads, which are then returned and not loaded.
        split = self.adapt(model, split)
        load_into(model, split.backbone, self.table, where=where)
        return dict(split.heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Layout):
    """A family of models and its weight files.

    Args:
        name: name in commands and bundles.
        title: name of the family and of the projects that write such files, for users.
        model: class of the model.
        starts: layouts of other families whose files can fill such a model.
        required: names that the backbone of every file of the family has; no other family has all of them.
            `a|b` stands for alternatives.
        sizes: function that reads the arguments of `model` from the shapes. Arguments that shapes do not show
            are None.
        builders: functions of `diptych.models`, by width and number of layers of the text.
        heads: known heads. The first one that fits becomes the task.
        drops: other names that files may have, and why they are left out.
        processor: function that returns settings of the processor that differ from diptych's defaults.
            `lowercase` is a setting of its tokenizer.
        tokenizer: class of the tokenizer.
        regions: whether the model reads regions.
        places: rows of the position table after the text that other parts of the sequence need.
        benchmark: function that returns the benchmark that a head of two classes was trained for and the
            evidence; None if it is not known.
        habits: settings of the model that shapes do not show, and the evidence for their values.
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
    tokenizer: type[BytePair | SentencePiece | WordPiece] = WordPiece
    regions: bool = True
    places: int = 0
    benchmark: Callable[[Use], tuple[Benchmark, str] | None] = lambda _: None
    habits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognizedCheckpoint:
    """A file whose family is known.

    Args:
        split: its tensors, as backbone and heads.
        sizes: arguments of the model, from the shapes.
    """

    family: Family
    split: Split
    sizes: Node


def count(weights: Weights, pattern: str) -> int:
    """Count the different numbers at `{}` in names that begin with the pattern, such as layers."""
    # `\D` after the number: `layer.1` must not match `layer.12`. Different numbers,
    # because a file may lack some.
    numbered = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)") + r"\D")
    return len({match[1] for name in weights if (match := numbered.match(name))})


def heads_of(dim: int, each: int = 64) -> int | None:
    """Number of attention heads if each is `each` wide, as in published models; None if `dim` has a rest."""
    # Shapes never show the number of heads: query, key and value are square matrices for any number.
    return None if dim % each else dim // each


def bert_sizes(weights: Weights) -> Node:
    """Read the sizes of a BERT from the shapes of its tensors."""
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
