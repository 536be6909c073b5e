"""What tells the weight files of one family from all others, and what becomes of them.

Each converter describes its family as data; here is what reads these descriptions.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from diptych.convert.heads import linear, stacked, transformed
from diptych.convert.rules import Drop, Rule, Table, Weights, left_out, taken
from diptych.errors import CheckpointMismatch, ConfigError, nearest

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
        processor: arguments of the processor beside the tokenizer, for a model of these sizes.
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
    processor: Callable[[Node], Node] = lambda _: {"regions": True}

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
        raise ConfigError(
            f"there is no family {asked!r}.{nearest(asked, names)} There are {', '.join(names)}."
        )
    parts = [(family, family.part(weights)) for family in families]
    fitting = [(one, part) for one, part in parts if part is not None and not part.lacks(one.marks)]
    # BERT's marks are also part of most others
    finest = [
        (one, part) for one, part in fitting if not any(one.marks < other.marks for other, _ in fitting)
    ]
    if len(finest) > 1 and asked is not None:
        finest = [(one, part) for one, part in finest if one.name == asked] or finest
    if len(finest) != 1:
        raise CheckpointMismatch(f"{where}: {_seen(weights, parts, [one.name for one, _ in finest])}")
    [(family, part)] = finest
    if asked not in (None, family.name):
        raise CheckpointMismatch(
            f"{where}: holds {family.title}, known by {', '.join(sorted(family.marks))}; expected "
            f"{asked}. Leave the family out, or say {family.name}."
        )
    try:
        sizes = family.sizes(part)
    except KeyError as error:
        raise CheckpointMismatch(
            f"{where}: {family.title}, but {error.args[0]} is missing, and with it a size. Was a part lost?"
        ) from error
    return Found(family=family, parted=part, sizes=sizes)


def _seen(weights: Weights, parts: Sequence[tuple[Family, Parted | None]], fitting: list[str]) -> str:
    first = f"{len(weights)} tensors, first {', '.join(list(weights)[:4])}"
    if fitting:
        return f"fits {' and '.join(fitting)} ({first}); say which with family=."
    lacking = {
        family.name: part.lacks(family.marks)
        for family, part in parts
        if part is not None and len(part.lacks(family.marks)) < len(family.marks)
    }
    if not lacking:
        return f"no family fits: none has such names ({first}). `diptych convert --list` names public files."
    close = min(lacking, key=lambda name: len(lacking[name]))
    return f"no family fits ({first}); closest is {close}, which also has {', '.join(lacking[close][:3])}."


def choose_head(found: Found, dim: int, *, asked: str | None, where: object) -> tuple[Head, Node, int] | None:
    """The head that becomes the task, its node and its number of classes; None where no head fits.

    Args:
        found: with settled sizes.
        dim: width of the pooled vector.
        asked: name of the head; None takes the first that fits.

    Raises:
        ConfigError: the file does not hold the head that was asked for.
    """
    fitting: dict[str, tuple[Head, Node, int]] = {}
    for head in found.family.heads:
        own = taken(found.parted.rest, head.table)
        if own and head.name not in fitting and (made := head.task(own, dim, found)):
            fitting[head.name] = (head, *made)
    if asked is not None and asked not in fitting:
        raise ConfigError(
            f"{where}: holds no head {asked!r} that becomes a task; it has {', '.join(fitting) or 'none'}."
        )
    return fitting[asked] if asked is not None else next(iter(fitting.values()), None)


def dropped(
    found: Found, head: Head | None, *, targets: Collection[str], where: object
) -> dict[str, list[str]]:
    """Reasons, and the names of the file that are left out for each.

    Args:
        head: that becomes the task.
        targets: names of the model's weights.

    Raises:
        CheckpointMismatch: names that nothing accounts for.
    """
    part, family = found.parted, found.family
    reasons, lost = left_out(part.backbone, family.table, targets=targets)
    rest = {**part.rest, **lost}
    for table in (() if head is None else head.table, family.drops, _others(family, head)):
        more, rest = left_out(rest, table)
        for reason, names in more.items():
            reasons.setdefault(reason, []).extend(names)
    if rest:
        raise CheckpointMismatch(
            f"{where}: {len(rest)} name(s) beside {family.title} mean nothing here: "
            f"{', '.join(list(rest)[:8])}. Remove them, if they are no part of the model."
        )
    result: dict[str, list[str]] = {"state of the optimizer": part.training} if part.training else {}
    for reason, names in reasons.items():
        result[reason] = [
            family.original(name, prefix=part.prefix, outer=part.outer, head=name in part.rest)
            for name in names
        ]
    return result


def _others(family: Family, head: Head | None) -> Table:
    """Heads that diptych has a task for, but that are not taken."""
    return tuple(
        Drop(rule.sources[0], f"{rule.sources[0]}: a head beside the one converted")
        for other in family.heads
        if head is None or other.name != head.name
        for rule in other.table
        if isinstance(rule, Rule)
    )


Become = Callable[[int, int], tuple[Node, int] | None]
Asked = tuple[str, Callable[[Weights], Node]]
LAYOUTS = (
    (linear, ("",)),
    (stacked, (".0", ".3")),
    (stacked, (".0", ".2")),
    (transformed, (".0.dense", ".1")),
)


def heads(name: str, become: Become, *, relu: Callable[[Found], bool] = lambda _: False) -> tuple[Head, ...]:
    """A head in the layouts of the originals.

    Args:
        become: what the number of outputs, and of pooled vectors side by side, makes of it.
        relu: whether a head with a LayerNorm has a ReLU instead of a GELU, which its tensors do not show; one
            without always has.
    """
    return tuple(
        linears(
            name,
            table(name),
            [f"{name}{end}.weight" for end in ends],
            become,
            norm=".2" not in ends,
            relu=(lambda _: True) if ".2" in ends else relu,
        )
        for table, ends in LAYOUTS
    )


def linears(
    name: str,
    table: Table,
    matrices: Sequence[str],
    become: Become,
    *,
    norm: bool = True,
    relu: Callable[[Found], bool] = lambda _: False,
) -> Head:
    """A head by the matrices of its one or two Linears."""

    def task(weights: Weights, dim: int, found: Found) -> tuple[Node, int] | None:
        if any(one not in weights or weights[one].dim() != 2 for one in matrices):
            return None
        inputs, outputs = weights[matrices[0]].shape[1], len(weights[matrices[-1]])
        made = become(outputs, inputs // dim if inputs % dim == 0 else 1)
        if made is None:
            return None
        node: Node = {"_target_": "diptych.nn.ClassifierHead", "_partial_": True, "layers": len(matrices)}
        if len(matrices) == 2:
            node |= {"width": len(weights[matrices[0]]) / inputs, "norm": norm}
            node["activation"] = "relu" if relu(found) else "gelu"
        return {**made[0], "head": node}, made[1]

    return Head(name=name, table=table, task=task)


def pretraining(table: Table, *, draw: Node | None = None, **objectives: Asked) -> Head:
    """The heads of pre-training, as far as a file has them; masked words it must have.

    Args:
        table: to a `Pretrain` with these objectives.
        draw: more arguments of the task, for files that have all of its heads.
        objectives: in the order in which they corrupt a batch, each with a name that shows it in a file, and
            what makes a node of the file's weights.
    """

    def task(weights: Weights, dim: int, found: Found) -> tuple[Node, int] | None:
        nodes = {name: node(weights) for name, (mark, node) in objectives.items() if mark in weights}
        whole = draw if draw and len(nodes) == len(objectives) else {}
        fits = "words" in nodes
        return ({"_target_": "diptych.tasks.Pretrain", "objectives": nodes, **whole}, 0) if fits else None

    return Head(name="pre-training", table=table, task=task)


def objective(name: str, **arguments: Any) -> Node:
    """The node of an objective, or of what one asks about regions."""
    return {"_target_": f"diptych.tasks.objectives.{name}", "_partial_": True, **arguments}


def region_classes(name: str, **arguments: Any) -> Asked:
    """Hidden regions are asked for the detector's classes; the bias of the last Linear has this name."""
    loss = arguments.pop("loss", "kl")

    def node(weights: Weights) -> Node:
        predict = {"classes": objective("RegionProbabilities", classes=len(weights[name]), loss=loss)}
        return objective("MaskedRegions", predict=predict, **arguments)

    return name, node


def masked_text(name: str, **arguments: Any) -> Asked:
    return name, lambda _: objective("MaskedText", **arguments)


def classes(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """Two or three are labels, more are answers."""
    if outputs > 3 and pairs == 1:
        return answers(outputs, pairs)
    return ({"_target_": "diptych.tasks.Classify", "pairs": pairs}, outputs) if outputs in (2, 3) else None


def answers(outputs: int, pairs: int) -> tuple[Node, int] | None:
    return ({"_target_": "diptych.tasks.Answer"}, outputs) if outputs > 1 else None


def choices(outputs: int, pairs: int) -> tuple[Node, int] | None:
    loss = {1: "ce", 2: "two_way"}.get(outputs)
    return None if loss is None else ({"_target_": "diptych.tasks.Choose", "loss": loss}, 0)


def grounding(outputs: int, pairs: int) -> tuple[Node, int] | None:
    return ({"_target_": "diptych.tasks.Ground"}, 0) if outputs == 1 else None


def retrieval(outputs: int, pairs: int) -> tuple[Node, int] | None:
    return ({"_target_": "diptych.tasks.Match", "loss": "margin"}, 0) if outputs == 1 else None


def matching(matches: int) -> Become:
    """A head of two outputs of which one, whose number differs between families, means "matches"."""

    def become(outputs: int, pairs: int) -> tuple[Node, int] | None:
        return ({"_target_": "diptych.tasks.Match", "matches": matches}, 0) if outputs == 2 else None

    return become


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
