"""Derive the settings of heads on embeddings and prompts, and the targets that come from beside the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.data import Processor
from diptych.data.relabeled import Relabeled
from diptych.errors import ConfigError
from diptych.models import Embeddings, JointEmbeddings
from diptych.nn import PromptHead
from diptych.nodes import function_of
from diptych.predictions import Predictions
from diptych.recipe.call import call
from diptych.tasks import MemeClip, Rgcl
from diptych.types import Dataset, RegionSource

Node = Mapping[str, Any]


def with_prompts(task: Node, processor: Processor) -> Node:
    """Tokenize the prompts of a task or its head, one list per label, in the order of the labels.

    Raises:
        ConfigError: a label has no prompts, or prompts are of no label.
    """
    head = task.get("head")
    if isinstance(head, Mapping) and function_of(head) is PromptHead:
        return {**task, "head": _tokenized(head, task["labels"], processor, "task.head.prompts")}
    return _tokenized(task, task["labels"], processor, "task.prompts") if _prompted(task) else task


def _prompted(task: Node) -> bool:
    return function_of(task) is MemeClip and task.get("prompts") is not None


def _tokenized(node: Node, labels: Sequence[str], processor: Processor, where: str) -> Node:
    prompts, text = node["prompts"], processor.text
    if node.get("tokens"):
        return node
    if text is None:
        raise ConfigError(
            f"{where} is set, but the model reads no text, such as a prompt; choose a model that does. On "
            "stored vectors, MemeCLIP starts anywhere: task.prompts=null task.dim=NUMBER."
        )
    if sorted(prompts) != sorted(labels):
        raise ConfigError(
            f"{where} is for {', '.join(map(repr, prompts))}; expected the labels "
            f"{', '.join(map(repr, labels))}."
        )
    ordered = {label: list(prompts[label]) for label in labels}
    most = processor.max_tokens
    tokens = [
        [list(text.encode(prompt, max_tokens=most).ids) for prompt in some] for some in ordered.values()
    ]
    return {**node, "prompts": ordered, "tokens": tokens}


def with_cases(task: Node, train: Dataset) -> Node:
    """Replace `cases: auto` by the number of training examples."""
    if function_of(task) is not Rgcl or task.get("cases") != "auto":
        return task
    return {**task, "cases": len(train)}


def with_parts(model: Node, regions: RegionSource | None) -> Node:
    """Fill in the parts of stored embeddings.

    Raises:
        ConfigError: the store holds embeddings and the model reads regions, or the other way round.
    """
    stored = () if regions is None else regions.meta.parts
    embeddings = function_of(model) in (Embeddings, JointEmbeddings)
    if embeddings and not stored:
        raise ConfigError(
            f"{_name(regions)} holds no embeddings; expected features=STORE of `diptych embed`."
        )
    if stored and not embeddings:
        raise ConfigError(
            f"{_name(regions)} holds embeddings ({', '.join(stored)}) and no regions; use "
            "model=embeddings, or another store."
        )
    if not stored:
        return model
    widths = dict(part.rsplit(":", 1) for part in stored)
    return {"parts": {name: int(width) for name, width in widths.items()}, **model}


def _name(regions: RegionSource | None) -> object:
    return getattr(regions, "path", "the feature store")


def with_targets(task: Node, data: Node, train: Dataset) -> tuple[Node, Dataset]:
    """Give training examples the soft targets of a file, and the fine-grained labels of a data set.

    `task.soft_targets` is a prediction file of the training examples, such as an ensemble's predictions out
    of fold; `task.soft_share` the share of its probabilities in the targets, where an example has a label of
    its own. `data.fine` is a data set of several labels with the same ids.

    Raises:
        ConfigError: examples or labels are missing in the file, or the task takes no fine-grained labels.
    """
    soft, share, fine = task.get("soft_targets"), task.get("soft_share", 1.0), data.get("fine")
    task = {name: value for name, value in task.items() if name not in ("soft_targets", "soft_share")}
    if soft:
        train = Relabeled.soft(
            train, Predictions.load(Path(soft)), task["labels"], share=share, where=Path(soft)
        )
    if fine:
        if "fine" not in task:
            raise ConfigError("data.fine is for a task with fine-grained labels; use task=hate_clipper.")
        more = call(fine)
        names = list(more.labels) if task["fine"] == "auto" else task["fine"]
        train = Relabeled.fine(train, more, names)
        task = {**task, "fine": names}
    elif task.get("fine"):
        raise ConfigError(f"task.fine is {task['fine']!r}, but there is no data.fine with these labels.")
    return task, train
