"""Heads of the originals: rules for the names of their tensors, and the task config from their shapes."""

from collections.abc import Callable, Sequence
from typing import Any

from diptych.convert.family import Head, Node, RecognizedCheckpoint
from diptych.convert.rules import Table, Weights, rename

LAYERS = "head.layers"
# Function of the number of outputs and of concatenated pooled vectors; returns what `Head.task` returns.
ToTask = Callable[[int, int], tuple[Node, int] | None]
# A name that files with the head of an objective have, and a function that returns the objective's config.
Objective = tuple[str, Callable[[Weights], Node]]


def linear(name: str) -> Table:
    """Rules for a head of one Linear."""
    return (rename(name, f"{LAYERS}.0"),)


def stacked(name: str) -> Table:
    """Rules for a head of two Linears in a Sequential, whose members have the same numbers here."""
    return (rename(name, LAYERS),)


def transformed(name: str, *, last: int = 1) -> Table:
    """Rules for a head of BERT's transform and a Linear, which has the number `last` (mmf, VL-BERT)."""
    return (
        rename(f"{name}.0.dense", f"{LAYERS}.0"),
        rename(f"{name}.0.LayerNorm", f"{LAYERS}.2"),
        rename(f"{name}.{last}", f"{LAYERS}.3"),
    )


def weight_normed(name: str) -> Table:
    """Rules for a head of two weight-normed Linears, which becomes a `WeightNormHead`."""
    return (
        rename(f"{name}.{{}}.weight_g", f"{LAYERS}.{{}}.scale"),
        rename(f"{name}.{{}}.weight_v", f"{LAYERS}.{{}}.direction"),
        rename(f"{name}.{{}}.bias", f"{LAYERS}.{{}}.bias"),
    )


# UNITER's NLVR2 head: the left and the right row attend to each other, then a weighted mean of each is read.
PAIR_ATTENTION: Table = (
    rename("attn1", "readout.attention.0"),
    rename("attn2", "readout.attention.1"),
    rename("fc.0", "readout.merge"),
    rename("attn_pool.fc.0", "readout.weigh"),
    *linear("nlvr2_output"),
)
# Layouts of heads in the originals: rules, and the ends of the names of their Linears. In a Sequential of two
# Linears, the second has the number 3 behind GELU and LayerNorm, but 2 behind ReLU.
LAYOUTS = (
    (linear, ("",)),
    (stacked, (".0", ".3")),
    (stacked, (".0", ".2")),
    (transformed, (".0.dense", ".1")),
)


def layouts(
    name: str, to_task: ToTask, *, relu: Callable[[RecognizedCheckpoint], bool] = lambda _: False
) -> tuple[Head, ...]:
    """Describe a head of this name in every layout that the originals use.

    Args:
        to_task: see `ToTask`.
        relu: function that says whether a head with LayerNorm uses ReLU; its tensors do not show it. Heads
            without LayerNorm always do.
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
    """Describe a head of one or two Linears.

    Args:
        matrices: names of the weights of the Linears.
        norm: whether a LayerNorm follows the first one.
        relu: see `layouts`.
    """

    def task(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
        # A layout is recognized by the names of its matrices alone; strangers' files may have vectors there.
        if any(matrix not in weights or weights[matrix].dim() != 2 for matrix in matrices):
            return None
        # A Linear's weight is (outputs, inputs).
        inputs, outputs = weights[matrices[0]].shape[1], len(weights[matrices[-1]])
        # A head over two pairs (NLVR2) reads their pooled vectors concatenated.
        made = to_task(outputs, inputs // dim if inputs % dim == 0 else 1)
        if made is None:
            return None
        node: Node = {"_target_": "diptych.nn.ClassifierHead", "_partial_": True, "layers": len(matrices)}
        if len(matrices) == 2:
            # `ClassifierHead` takes the width as a multiple of its inputs.
            node |= {"width": len(weights[matrices[0]]) / inputs, "norm": norm}
            node["activation"] = "relu" if relu(found) else "gelu"
        return {**made[0], "head": node}, made[1]

    return Head(name=name, table=table, task=task)


def pretraining(table: Table, *, draw: Node | None = None, **objectives: Objective) -> Head:
    """Describe the heads of pre-training that a file has; the head of masked words is required.

    Args:
        table: rules for a `Pretrain` task with these objectives.
        draw: further arguments of the task, for files that have all heads.
        objectives: objectives in the order in which they corrupt a batch.
    """

    def task(weights: Weights, dim: int, found: RecognizedCheckpoint) -> tuple[Node, int] | None:
        nodes = {name: node(weights) for name, (mark, node) in objectives.items() if mark in weights}
        # Frequencies name objectives, so they hold only if all of these are there.
        whole = draw if draw and len(nodes) == len(objectives) else {}
        fits = "words" in nodes
        return ({"_target_": "diptych.tasks.Pretrain", "objectives": nodes, **whole}, 0) if fits else None

    return Head(name="pre-training", table=table, task=task)


def objective(name: str, **arguments: Any) -> Node:
    """Return the config of an objective, or of a prediction about regions."""
    return {"_target_": f"diptych.tasks.objectives.{name}", "_partial_": True, **arguments}


def region_classes(name: str, **arguments: Any) -> Objective:
    """Objective that predicts the detector's classes of hidden regions.

    Args:
        name: name of the bias of the last Linear, whose length is the number of classes.
    """
    loss = arguments.pop("loss", "kl")

    def node(weights: Weights) -> Node:
        predict = {"classes": objective("RegionProbabilities", classes=len(weights[name]), loss=loss)}
        return objective("MaskedRegions", predict=predict, **arguments)

    return name, node


def masked_text(name: str, **arguments: Any) -> Objective:
    """Objective that predicts hidden words; `name` is a tensor of its head."""
    return name, lambda _: objective("MaskedText", **arguments)


def classes(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A head of classification: two or three outputs are classes, more are answers."""
    if outputs > 3 and pairs == 1:
        return answers(outputs, pairs)
    return ({"_target_": "diptych.tasks.Classify", "pairs": pairs}, outputs) if outputs in (2, 3) else None


def answers(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A head with one score per answer."""
    return ({"_target_": "diptych.tasks.Answer"}, outputs) if outputs > 1 else None


def choices(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A head with one score per choice, or two scores, of which the second is that of the right choice."""
    # UNITER's and Oscar's heads of VCR have two outputs per choice, the others one.
    loss = {1: "ce", 2: "two_way"}.get(outputs)
    return None if loss is None else ({"_target_": "diptych.tasks.Choose", "loss": loss}, 0)


def grounding(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A head with one score per region."""
    return ({"_target_": "diptych.tasks.Ground"}, 0) if outputs == 1 else None


def retrieval(outputs: int, pairs: int) -> tuple[Node, int] | None:
    """A head with one score per pair of text and image."""
    # One score has no class "no match"; the originals train it with a margin between right and wrong pairs.
    return ({"_target_": "diptych.tasks.Match", "loss": "margin"}, 0) if outputs == 1 else None


def matching(*, matches: int) -> ToTask:
    """A head with two outputs, of which number `matches` means that text and image match."""

    def to_task(outputs: int, pairs: int) -> tuple[Node, int] | None:
        return ({"_target_": "diptych.tasks.Match", "matches": matches}, 0) if outputs == 2 else None

    return to_task
