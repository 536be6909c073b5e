"""Heads of the originals: from their names to those of a task, and from their shapes to its configuration."""

from collections.abc import Callable, Sequence
from typing import Any

from diptych.convert.family import Head, Node, RecognizedCheckpoint
from diptych.convert.rules import Table, Weights, rename

LAYERS = "head.layers"
# from the numbers of outputs and of pooled vectors side by side, as `Head.task`
ToTask = Callable[[int, int], tuple[Node, int] | None]
# a name that shows the head of an objective in a file, and the configuration that its tensors come to
Objective = tuple[str, Callable[[Weights], Node]]


def linear(name: str) -> Table:
    """A head of one Linear."""
    return (rename(name, f"{LAYERS}.0"),)


def stacked(name: str) -> Table:
    """A head of two Linears in a Sequential, whose members have the same numbers here."""
    return (rename(name, LAYERS),)


def transformed(name: str, *, last: int = 1) -> Table:
    """Two Linears of which the first is a transform of BERT's (mmf, VL-BERT); `last` is the other."""
    return (
        rename(f"{name}.0.dense", f"{LAYERS}.0"),
        rename(f"{name}.0.LayerNorm", f"{LAYERS}.2"),
        rename(f"{name}.{last}", f"{LAYERS}.3"),
    )


def weight_normed(name: str) -> Table:
    """Two weight-normed Linears, for a `WeightNormHead`."""
    return (
        rename(f"{name}.{{}}.weight_g", f"{LAYERS}.{{}}.scale"),
        rename(f"{name}.{{}}.weight_v", f"{LAYERS}.{{}}.direction"),
        rename(f"{name}.{{}}.bias", f"{LAYERS}.{{}}.bias"),
    )


PAIR_ATTENTION: Table = (
    rename("attn1", "readout.attention.0"),
    rename("attn2", "readout.attention.1"),
    rename("fc.0", "readout.merge"),
    rename("attn_pool.fc.0", "readout.weigh"),
    *linear("nlvr2_output"),
)
LAYOUTS = (
    (linear, ("",)),
    (stacked, (".0", ".3")),
    (stacked, (".0", ".2")),
    (transformed, (".0.dense", ".1")),
)


def layouts(
    name: str, to_task: ToTask, *, relu: Callable[[RecognizedCheckpoint], bool] = lambda _: False
) -> tuple[Head, ...]:
    """A head of this name in every layout that the originals use.

    Args:
        to_task: see `ToTask`.
        relu: the activation cannot be read from the tensors. Heads without LayerNorm use ReLU; this says
            whether those with LayerNorm do.
    """
    return tuple(
        linears(
            name,
            table(name),
            [f"{name}{end}.weight" for end in ends],
            to_task,
            norm=".2" not in ends,
            relu=(lambda _: True) if ".2" in ends else relu,
        )
        for table, ends in LAYOUTS
    )


def linears(
    name: str,
    table: Table,
    matrices: Sequence[str],
    to_task: ToTask,
    *,
    norm: bool = True,
    relu: Callable[[RecognizedCheckpoint], bool] = lambda _: False,
) -> Head:
    """A head by the matrices of its one or two Linears."""

    def task(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
        if any(one not in weights or weights[one].dim() != 2 for one in matrices):
            return None
        inputs, outputs = weights[matrices[0]].shape[1], len(weights[matrices[-1]])
        made = to_task(outputs, inputs // dim if inputs % dim == 0 else 1)
        if made is None:
            return None
        node: Node = {"_target_": "diptych.nn.ClassifierHead", "_partial_": True, "layers": len(matrices)}
        if len(matrices) == 2:
            node |= {"width": len(weights[matrices[0]]) / inputs, "norm": norm}
            node["activation"] = "relu" if relu(found) else "gelu"
        return {**made[0], "head": node}, made[1]

    return Head(name=name, table=table, task=task)


def pretraining(table: Table, *, draw: Node | None = None, **objectives: Objective) -> Head:
    """The heads of pre-training, as far as a file has them; masked words it must have.

    Args:
        table: to a `Pretrain` with these objectives.
        draw: more arguments of the task, for files that have all of its heads.
        objectives: in the order in which they corrupt a batch.
    """

    def task(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
        nodes = {name: node(weights) for name, (mark, node) in objectives.items() if mark in weights}
        whole = draw if draw and len(nodes) == len(objectives) else {}
        fits = "words" in nodes
        return ({"_target_": "diptych.tasks.Pretrain", "objectives": nodes, **whole}, 0) if fits else None

    return Head(name="pre-training", table=table, task=task)


def objective(name: str, **arguments: Any) -> Node:
    """The node of an objective, or of what one asks about regions."""
    return {"_target_": f"diptych.tasks.objectives.{name}", "_partial_": True, **arguments}


def region_classes(name: str, **arguments: Any) -> Objective:
    """Hidden regions are asked for the detector's classes; the bias of the last Linear has this name."""
    loss = arguments.pop("loss", "kl")

    def node(weights: Weights) -> Node:
        predict = {"classes": objective("RegionProbabilities", classes=len(weights[name]), loss=loss)}
        return objective("MaskedRegions", predict=predict, **arguments)

    return name, node


def masked_text(name: str, **arguments: Any) -> Objective:
    """Hidden words are asked for."""
    return name, lambda _: objective("MaskedText", **arguments)


def classes(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """Two or three are labels, more are answers."""
    if outputs > 3 and pairs == 1:
        return answers(outputs, pairs)
    return ({"_target_": "diptych.tasks.Classify", "pairs": pairs}, outputs) if outputs in (2, 3) else None


def answers(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A score per answer."""
    return ({"_target_": "diptych.tasks.Answer"}, outputs) if outputs > 1 else None


def choices(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """One score per choice, or two, of which the second says that it is the right one."""
    loss = {1: "ce", 2: "two_way"}.get(outputs)
    return None if loss is None else ({"_target_": "diptych.tasks.Choose", "loss": loss}, 0)


def grounding(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A score per region."""
    return ({"_target_": "diptych.tasks.Ground"}, 0) if outputs == 1 else None


def retrieval(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A score per pair of text and image."""
    return ({"_target_": "diptych.tasks.Match", "loss": "margin"}, 0) if outputs == 1 else None


def matching(*, matches: int) -> ToTask:
    """A head of two outputs of which one, whose number differs between families, means "matches"."""

    def to_task(outputs: int, pairs: int) -> tuple[Node, int] | None:
        return ({"_target_": "diptych.tasks.Match", "matches": matches}, 0) if outputs == 2 else None

    return to_task
