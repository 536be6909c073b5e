"""What a file of others becomes, settled before any weight is moved."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diptych.convert import FAMILIES, Found, Head, Source, choose_head, dropped, find, recognize
from diptych.datasets.hateful_memes import LABELS
from diptych.errors import ConfigError
from diptych.nodes import build
from diptych.text import WordPiece

Node = dict[str, Any]
# table sizes of published vocabularies, and where they are
VOCABULARIES = {
    30522: "BERT's uncased one, hub:google-bert/bert-base-uncased/vocab.txt",
    28996: "BERT's cased one, hub:google-bert/bert-base-cased/vocab.txt",
    29077: "BERT's cased one, hub:google-bert/bert-base-cased/vocab.txt; 81 further rows are VCR's persons",
    119547: "BERT's multilingual cased one, hub:google-bert/bert-base-multilingual-cased/vocab.txt",
}
SPARE = 128  # rows that a table may have beyond its vocabulary
# what a configuration of Hugging Face's or of the originals calls the numbers that shapes do not say
SETTINGS = {
    "num_attention_heads": (("heads",), ("text", "heads")),
    "v_num_attention_heads": (("vision", "heads"),),
    "bi_num_attention_heads": (("bridge", "heads"),),
    "co_num_attention_heads": (("bridge", "heads"),),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a file becomes, before any weight is moved; `found` with settled sizes."""

    found: Found
    node: Node
    model: Any
    head: Head | None
    task: Node
    dropped: dict[str, list[str]]


def plan_for(
    given: Source,
    source: object,
    *,
    overrides: Mapping[str, Any],
    device: str,
    family: str | None = None,
    head: str | None = None,
) -> Plan:
    found = recognize(given.weights, FAMILIES, where=source, asked=family)
    node = _settle(found, given.config, overrides.get("model", {}), where=source)
    with torch.device(device):
        model = build(node)
    found = replace(found, sizes={name: value for name, value in node.items() if name != "_target_"})
    chosen = choose_head(found, model.dim, asked=head, where=source)
    taken_head = chosen[0] if chosen else None
    task, count = (chosen[1], chosen[2]) if chosen else ({"_target_": "diptych.tasks.Classify"}, 2)
    if count:
        key = "answers" if task["_target_"].endswith("Answer") else "labels"
        memes = key == "labels" and count == 2
        task = {**task, key: list(LABELS) if memes else [str(number) for number in range(count)]}
    return Plan(
        found=found,
        node=node,
        model=model,
        head=taken_head,
        task=merged(task, overrides.get("task", {})),
        dropped=given.junk | dropped(found, taken_head, targets=model.state_dict(), where=source),
    )


def _settle(found: Found, config: Mapping[str, Any], overrides: Mapping[str, Any], *, where: object) -> Node:
    """The call that builds the model: sizes from shapes, from the configuration beside them, as asked."""
    sizes = copy.deepcopy(found.sizes)
    for name, paths in SETTINGS.items():
        for path in paths:
            inner = sizes.get(path[0]) if len(path) == 2 else sizes
            if name in config and isinstance(inner, dict) and path[-1] in inner:
                inner[path[-1]] = config[name]
    if "meetings" in sizes and {"t_biattention_id", "v_biattention_id"} <= config.keys():
        pairs = zip(config["t_biattention_id"], config["v_biattention_id"], strict=True)
        sizes["meetings"] = [list(pair) for pair in pairs]
    sizes = merged(sizes, overrides)
    if unknown := [f"model.{name}" for name in _unsaid(sizes)]:
        raise ConfigError(
            f"{where}: a {found.family.name} of a size that nobody published, and tensors do not say "
            f"{', '.join(unknown)}. Say it: {unknown[0]}=NUMBER."
        )
    depth = sizes if "layers" in sizes else sizes.get("text", {})
    builder = found.family.builders.get((depth.get("dim", 0), depth.get("layers", 0)))
    return {"_target_": f"diptych.models.{builder or found.family.model.__name__}", **sizes}


def merged(node: Mapping[str, Any], overrides: Mapping[str, Any]) -> Node:
    """A node with other settings, down to nodes inside of it."""
    result = dict(node)
    for name, value in overrides.items():
        inner = result.get(name)
        nodes = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[name] = merged(inner or {}, value) if nodes else value
    return result


def nested(overrides: Mapping[str, Any]) -> Node:
    """Settings by node: `{"model.heads": 4}` says the same as `{"model": {"heads": 4}}`.

    Raises:
        ConfigError: there is no such node, or a key is both a value and a node.
    """
    tree: Node = {}
    for key, value in overrides.items():
        first, *rest = str(key).split(".")
        for name in reversed(rest):
            value = {name: value}
        if not isinstance(value, Mapping) or not isinstance(tree.get(first, {}), Mapping):
            raise ConfigError(f"{key} is {value!r}; expected settings below it, as {first}.KEY.")
        tree[first] = merged(tree.get(first, {}), value)
    if unknown := tree.keys() - {"model", "processor", "task"}:
        raise ConfigError(f"there is no node {min(unknown)!r}; say model., processor. or task.")
    return tree


def _unsaid(node: Mapping[str, Any], above: str = "") -> list[str]:
    """Names of the numbers that are still open."""
    found = [above + name for name, value in node.items() if name == "heads" and value is None]
    inner = [(name, value) for name, value in node.items() if isinstance(value, Mapping)]
    return found + [one for name, value in inner for one in _unsaid(value, f"{above}{name}.")]


def processor_for(plan: Plan, given: Source, vocabulary: Path | str | None) -> Node:
    """The node of the processor, with the vocabulary of the weights.

    Raises:
        ConfigError: there is no vocabulary, or it does not fit the table of words.
    """
    rows = plan.model.word_embedding().num_embeddings
    published = VOCABULARIES.get(rows, f"one of {rows} tokens, which its authors must say")
    path = find(vocabulary) if vocabulary is not None else given.vocabulary
    if path is None:
        raise ConfigError(
            f"{given.path}: no vocab.txt lies beside the weights; say vocabulary=FILE. Theirs is {published}."
        )
    tokens = WordPiece(path).tokens
    if not 0 <= rows - len(tokens) <= SPARE:
        raise ConfigError(f"{path}: {len(tokens)} tokens for a table of {rows} words; expected {published}.")
    if len(tokens) < rows:
        warnings.warn(
            f"{path}: {len(tokens)} tokens for a table of {rows} words; the last {rows - len(tokens)} rows "
            "mean nothing here. If the vocabulary was cut, take the whole one.",
            stacklevel=2,
        )
    cased = any(token[:1].isupper() for token in tokens)
    return {
        "_target_": "diptych.data.Processor",
        "text": {"_target_": "diptych.text.WordPiece", "vocabulary": str(path), "lowercase": not cased},
        "max_tokens": 128,
        "max_regions": 100,
        **plan.found.family.processor(plan.found.sizes),
    }
