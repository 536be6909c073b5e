"""What heads of the originals become: their tensors to the node of a task."""

from collections.abc import Callable, Sequence
from typing import Any

from diptych.convert.family import Found, Head, Node
from diptych.convert.heads import linear, stacked, transformed
from diptych.convert.rules import Table, Weights

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
