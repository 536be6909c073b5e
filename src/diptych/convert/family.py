"""What tells the weight files of one family from all others, and what becomes of them.

Each converter describes its family as data; here is what reads these descriptions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from diptych.convert.rules import Drop, Table, Weights, explain, rename
from diptych.errors import CheckpointMismatch, ConfigError, nearest

Node = dict[str, Any]
Fill = Callable[..., object]
FEW = 3  # so many classes are labels; more are answers
PRETRAINING = (
    Drop("cls.predictions.decoder", "the word embedding again, to which the decoder of words is tied"),
    Drop("cls.predictions", "the head of masked words: pre-training"),
    Drop("cls.seq_relationship", "the head of matching texts: pre-training"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Weights beside the backbone that become a task.

    Args:
        name: what its names in a file begin with.
        table: from its names to those of the task.
        task: what its tensors, the width of the pooled vector and the whole file become: the node of a task
            without its labels, and the number of classes; None where the tensors are those of another head.
    """

    name: str
    table: Table
    task: "Callable[[Weights, int, Parted], tuple[Node, int] | None]"

    def take(self, weights: Weights) -> Weights:
        """The tensors that belong to it."""
        return {key: one for key, one in weights.items() if key.startswith(f"{self.name}.")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of models, as its files show it.

    Args:
        title: the family and who writes such files, for people.
        anchor: a name of the backbone; what precedes it in a file is the prefix.
        backbone: where the backbone has no prefix, what its names look like.
        marks: names below the prefix that every file of the family has, and that together no other has; `|`
            stands between names of which a file has one.
        sizes: the arguments of `model` read off the shapes below the prefix; None for what shapes do not say.
        builders: functions of `diptych.models` by width and number of layers of the text.
        training: what names of an optimizer look like that lie among the weights.
        heads: the first one that fits becomes the task.
        drops: what else may lie beside the backbone, and why it is left out.
        processor: arguments of the processor beside the tokenizer, for a model of these sizes.
    """

    name: str
    title: str
    model: type[nn.Module]
    fill: Fill
    table: Table
    sizes: Callable[[Weights, str], Node]
    marks: frozenset[str]
    anchor: str = "embeddings.word_embeddings.weight"
    backbone: re.Pattern[str] | None = None
    training: re.Pattern[str] | None = None
    builders: Mapping[tuple[int, int], str]
    heads: tuple[Head, ...] = ()
    drops: tuple[Drop, ...] = ()
    processor: Callable[[Node], Node] = lambda _: {"regions": True}

    def part(self, weights: Weights) -> "Parted | None":
        """Backbone and heads of a file; None where it has no backbone, or several."""
        training = {name for name in weights if self.training is not None and self.training.fullmatch(name)}
        weights = {name: one for name, one in weights.items() if name not in training}
        if self.backbone is not None:
            own = {name for name in weights if self.backbone.match(name)}
            outer, prefix = "", ""
        else:
            ends = [name for name in weights if name == self.anchor or name.endswith(f".{self.anchor}")]
            if len(ends) != 1:
                return None
            prefix = ends[0].removesuffix(self.anchor)
            own = {name for name in weights if name.startswith(prefix)}
            outer = prefix[: prefix.rfind(".", 0, -1) + 1] if prefix else ""
        rest = {name: one for name, one in weights.items() if name not in own}
        if not any(name.startswith(outer) for name in rest):
            outer = ""
        return Parted(
            prefix=prefix,
            outer=outer,
            backbone={name.removeprefix(prefix): one for name, one in weights.items() if name in own},
            rest={name.removeprefix(outer): one for name, one in rest.items()},
            training=sorted(training),
        )


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


def recognize(weights: Weights, families: Sequence[Family], *, where: object, asked: str | None) -> Found:
    """The one family whose marks a file bears, whatever the file is called.

    Args:
        asked: the family that somebody expects; None takes any.

    Raises:
        ConfigError: there is no such family.
        CheckpointMismatch: no family fits, more than one does, or it is another one than asked.
    """
    names = [family.name for family in families]
    if asked is not None and asked not in names:
        raise ConfigError(f"there is no family {asked!r}.{nearest(asked, names)} There are {', '.join(names)}.")
    parts = [(family, family.part(weights)) for family in families]
    fitting = [(one, part) for one, part in parts if part is not None and not part.lacks(one.marks)]
    # BERT's marks are also part of most others
    finest = [(one, part) for one, part in fitting if not any(one.marks < other.marks for other, _ in fitting)]
    if len(finest) != 1:
        raise CheckpointMismatch(f"{where}: {_seen(weights, parts, [one.name for one, _ in finest])}")
    [(family, part)] = finest
    if asked not in (None, family.name):
        raise CheckpointMismatch(
            f"{where}: holds {family.title}, known by {', '.join(sorted(family.marks))}; not {asked} as asked. "
            f"Leave the family out, or say {family.name}."
        )
    try:
        sizes = family.sizes(part.backbone, part.prefix)
    except KeyError as error:
        raise CheckpointMismatch(
            f"{where}: {family.title}, but without {part.prefix}{error.args[0]}; the sizes cannot be read off. "
            "Is a part of it missing?"
        ) from error
    return Found(family=family, parted=part, sizes=sizes)


def _seen(weights: Weights, parts: Sequence[tuple[Family, Parted | None]], fitting: list[str]) -> str:
    first = f"{len(weights)} tensors, first {', '.join(list(weights)[:4])}"
    if fitting:
        return f"fits {' and '.join(fitting)} ({first}); say which with family=."
    lacking = {
        family.name: part.lacks(family.marks) for family, part in parts if part is not None
    }
    if not lacking:
        return f"no family fits: none has such names ({first}). `diptych convert --list` names public files."
    close = min(lacking, key=lambda name: len(lacking[name]))
    return f"no family fits ({first}); closest is {close}, which also has {', '.join(lacking[close][:3])}."


def choose_head(found: Found, dim: int, *, asked: str | None, where: object) -> tuple[Head, Node, int] | None:
    """The head that becomes the task, its node and its number of classes; None where no head fits.

    Args:
        dim: width of the pooled vector.
        asked: name of the head; None takes the first that fits.

    Raises:
        ConfigError: the file does not hold the head that was asked for.
    """
    fitting = {}
    for head in found.family.heads:
        own = head.take(found.parted.rest)
        if own and head.name not in fitting and (made := head.task(own, dim, found.parted)):
            fitting[head.name] = (head, *made)
    if asked is not None and asked not in fitting:
        raise ConfigError(
            f"{where}: holds no head {asked!r} that becomes a task; it has {', '.join(fitting) or 'none'}."
        )
    return fitting[asked] if asked is not None else next(iter(fitting.values()), None)


def dropped(found: Found, taken: Head | None, *, where: object) -> dict[str, list[str]]:
    """Reasons, and the names of the file that are left out for each.

    Raises:
        CheckpointMismatch: names that nothing accounts for.
    """
    part, family = found.parted, found.family
    reasons, _ = explain(part.backbone, family.table, ())
    result = {reason: [part.prefix + name for name in names] for reason, names in reasons.items()}
    if part.training:
        result["state of the optimizer"] = part.training
    own = taken.take(part.rest) if taken is not None else {}
    rest = {name: one for name, one in part.rest.items() if name not in own}
    others = tuple(
        Drop(head.name, f"{head.name}: another head than the one converted")
        for head in family.heads
        if taken is None or head.name != taken.name
    )
    for table in (family.drops, others):
        reasons, rest = explain(rest, table, ())
        for reason, names in reasons.items():
            result.setdefault(reason, []).extend(part.outer + name for name in names)
    if rest:
        raise CheckpointMismatch(
            f"{where}: {len(rest)} name(s) beside {family.title} mean nothing here: "
            f"{', '.join(list(rest)[:8])}. Remove them, if they are no part of the model."
        )
    return result


def classifier(
    name: str,
    *,
    relu: Callable[[Parted], bool] = lambda _: False,
    when: Callable[[Parted], bool] = lambda _: True,
) -> tuple[Head, ...]:
    """Heads of a few classes on the pooled vector, or on those of two pairs, in the layouts of the originals.

    Args:
        relu: whether a head with a LayerNorm has a ReLU instead of a GELU, which its tensors do not show; one
            without always has.
    """
    layers = "head.layers"
    mmf = (
        rename(f"{name}.0.dense", f"{layers}.0"),
        rename(f"{name}.0.LayerNorm", f"{layers}.2"),
        rename(f"{name}.1", f"{layers}.3"),
    )

    def head(table: Table, *matrices: str, norm: bool = True) -> Head:
        def task(weights: Weights, dim: int, file: Parted) -> tuple[Node, int] | None:
            if not when(file) or any(one not in weights or weights[one].dim() != 2 for one in matrices):
                return None
            inputs, classes = weights[matrices[0]].shape[1], len(weights[matrices[-1]])
            if not 2 <= classes <= FEW or inputs % dim:
                return None
            node: Node = {"_target_": "diptych.nn.ClassifierHead", "_partial_": True, "layers": len(matrices)}
            if len(matrices) == 2:
                node |= {"width": len(weights[matrices[0]]) / inputs, "norm": norm}
                node["activation"] = "relu" if relu(file) or not norm else "gelu"
            return {"_target_": "diptych.tasks.Classify", "pairs": inputs // dim, "head": node}, classes

        return Head(name=name, table=table, task=task)

    return (
        head((rename(name, f"{layers}.0"),), f"{name}.weight"),
        head((rename(name, layers),), f"{name}.0.weight", f"{name}.3.weight"),
        head((rename(name, layers),), f"{name}.0.weight", f"{name}.2.weight", norm=False),
        head(mmf, f"{name}.0.dense.weight", f"{name}.1.weight"),
    )


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
