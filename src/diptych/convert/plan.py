"""What a file of others becomes, settled before any weight is moved."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diptych.convert.families import FAMILIES
from diptych.convert.family import Head, RecognizedCheckpoint
from diptych.convert.fetch import find
from diptych.convert.load import Source
from diptych.convert.recognize import choose_head, dropped, recognize
from diptych.convert.settings import MEMES, Setting, Settings, Use
from diptych.convert.vocabulary import published, require_fitting, tokenizer_settings
from diptych.errors import ConfigError
from diptych.nodes import HERE, build
from diptych.text import WordPiece

Node = dict[str, Any]
DEFAULT = "default: nothing tells"
TOKENIZER = ("lowercase", "strip_accents")  # settings of the tokenizer, not of the processor
# what a configuration of Hugging Face's or of the originals calls the numbers that shapes do not say
SETTINGS = {
    "num_attention_heads": (("heads",), ("text", "heads")),
    "v_num_attention_heads": (("vision", "heads"),),
    "bi_num_attention_heads": (("bridge", "heads"),),
    "co_num_attention_heads": (("bridge", "heads"),),
}


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """What a file becomes, before any weight is moved; `found` with settled sizes.

    Args:
        settings: by the names that one types, `processor.max_tokens`; without those of the vocabulary.
    """

    found: RecognizedCheckpoint
    node: Node
    model: Any
    head: Head | None
    task: Node
    dropped: dict[str, list[str]]
    settings: Settings


def plan_for(
    given: Source,
    source: object,
    *,
    overrides: Mapping[str, Any],
    device: str,
    family: str | None = None,
    head: str | None = None,
) -> ConversionPlan:
    """Recognize a file, and settle its model, its task and their settings.

    Args:
        source: what somebody gave, for the error messages.
        device: of the model; `meta` takes no memory.

    Raises:
        ConfigError: a setting that nothing says, or no such family or head.
        CheckpointMismatch: no family or several fit, or names are unaccounted for.
    """
    found = recognize(given.weights, FAMILIES, where=source, asked=family)
    node = _settle(found, given.config, overrides.get("model", {}), where=source)
    with torch.device(device):
        model = build(node)
    found = replace(found, sizes={name: value for name, value in node.items() if name != "_target_"})
    chosen = choose_head(found, model.dim, asked=head, where=source)
    taken_head = chosen[0] if chosen else None
    task, count = (chosen[1], chosen[2]) if chosen else ({"_target_": "diptych.tasks.Classify"}, 2)
    use = Use(found=found, head=taken_head.name if taken_head else "", task=task, count=count)
    names = _named(use)
    task = task | {name.removeprefix("task."): one.value for name, one in names.items()}
    return ConversionPlan(
        found=found,
        node=node,
        model=model,
        head=taken_head,
        task=merged(task, overrides.get("task", {})),
        dropped=given.junk | dropped(found, taken_head, targets=model.state_dict(), where=source),
        settings=_sizes(found, given.config) | _settings(use) | names,
    )


def _settle(
    found: RecognizedCheckpoint, config: Mapping[str, Any], overrides: Mapping[str, Any], *, where: object
) -> Node:
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


def processor_for(
    plan: ConversionPlan, given: Source, vocabulary: Path | str | None, *, overrides: Mapping[str, Any]
) -> tuple[Node, Settings]:
    """The node of the processor, with the vocabulary of the weights, and where its settings come from.

    Raises:
        ConfigError: there is no vocabulary, or it does not fit the table of words; a setting does not fit.
    """
    rows = plan.model.word_embedding().num_embeddings
    path = vocabulary_of(given, vocabulary)
    if path is None:
        raise ConfigError(
            f"{given.path}: no vocab.txt lies beside the weights; say vocabulary=FILE. Theirs is "
            f"{published(rows)}."
        )
    tokens = WordPiece(path).tokens
    require_fitting(tokens, rows, path=path)
    settings = _dotted(tokenizer_settings(tokens)) | plan.settings
    node: Node = {"_target_": "diptych.data.Processor"}
    node["text"] = {"_target_": "diptych.text.WordPiece", "vocabulary": str(path)}
    for name, one in settings.items():
        if name.startswith("processor."):
            inner = node["text"] if name.startswith("processor.text.") else node
            inner[name.rpartition(".")[2]] = one.value
    node = merged(node, overrides.get("processor", {}))
    # built as from a bundle, so that settings that do not fit show before anything is written
    path = Path(node["text"]["vocabulary"]).resolve()
    text = {**node["text"], "vocabulary": f"{HERE}/{path.name}"}
    build({**node, "text": text}, where="settings", key="processor", folder=path.parent)
    return node, settings | asked(overrides)


def asked(overrides: Mapping[str, Any], above: str = "") -> Settings:
    """Settings that somebody typed."""
    found: Settings = {}
    for name, value in overrides.items():
        inner = isinstance(value, Mapping)
        found |= asked(value, f"{above}{name}.") if inner else {above + name: Setting(value, "as asked")}
    return found


def vocabulary_of(given: Source, vocabulary: Path | str | None) -> Path | None:
    return find(vocabulary) if vocabulary is not None else given.vocabulary


def _sizes(found: RecognizedCheckpoint, config: Mapping[str, Any]) -> Settings:
    said = {path[0] for name, paths in SETTINGS.items() if name in config for path in paths}
    settings = {}
    for name, value in found.sizes.items():
        why = found.family.habits.get(name, "the file: shapes of its tensors")
        if name == "heads" or (isinstance(value, Mapping) and "heads" in value):
            published = "of its config.json" if name in said else "as wide as published"
            why = f"{why}; heads {published}" if name != "heads" else f"the file: heads {published}"
        settings[f"model.{name}"] = Setting(value, why)
    return settings


def _settings(use: Use) -> Settings:
    """What a family says of its processor, and diptych's defaults; no text is longer than its positions."""
    family, sizes = use.found.family, use.found.sizes
    settings = {"max_tokens": Setting(128, DEFAULT)}
    if family.regions:
        settings["regions"] = Setting(True, "the file: its model reads regions")
        settings["max_regions"] = Setting(100, DEFAULT)
    settings |= family.processor(use)
    rows: int = sizes["max_positions"] if "max_positions" in sizes else sizes["text"]["max_positions"]
    room = rows - sizes.get("first_position", 0) - family.places
    tokens = settings["max_tokens"]
    if tokens.value is None or tokens.value > room:
        settings["max_tokens"] = Setting(room, f"{tokens.why}; the file: its positions allow {room}")
    return _dotted(settings)


def _dotted(settings: Settings) -> Settings:
    return {f"processor.{'text.' * (name in TOKENIZER)}{name}": one for name, one in settings.items()}


def _named(use: Use) -> Settings:
    """The names of the classes or answers: known ones, else numbers."""
    if use.kind not in ("Answer", "Classify"):
        return {}
    names, why = [str(number) for number in range(use.count)], "default: the file names none"
    if not use.head:
        names, why = list(MEMES.labels), f"default: a new head for {MEMES.name}"
    elif use.kind == "Classify" and use.count == 2 and (known := use.found.family.benchmark(use)):
        names, why = list(known[0].labels), f"{known[1]}, so {known[0].name}"
    return {"task.answers" if use.kind == "Answer" else "task.labels": Setting(names, why)}
