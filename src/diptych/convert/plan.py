"""Planning of a conversion: model, task and settings, decided before any weight is moved."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diptych.convert.answers import table_setting
from diptych.convert.families import FAMILIES
from diptych.convert.family import Head, RecognizedCheckpoint
from diptych.convert.fetch import find
from diptych.convert.load import Source
from diptych.convert.recognize import choose_head, dropped, recognize
from diptych.convert.settings import MEMES, Setting, Settings, Use
from diptych.convert.vocabulary import published, tokenizer_for
from diptych.errors import ConfigError
from diptych.nodes import HERE, build

Node = dict[str, Any]
DEFAULT = "default: not known of the file"
TOKENIZER = ("clean", "fix", "lowercase", "strip_accents")  # settings of the tokenizer, not of the processor
# Arguments of models that shapes do not show, by their names in config.json (Hugging Face, the originals).
SETTINGS = {
    "num_attention_heads": (("heads",), ("text", "heads")),
    "v_num_attention_heads": (("vision", "heads"),),
    "bi_num_attention_heads": (("bridge", "heads"),),
    "co_num_attention_heads": (("bridge", "heads"),),
    "text_config.num_attention_heads": (("text", "heads"),),
    "vision_config.num_attention_heads": (("vision", "heads"),),
    "text_config.hidden_act": (("text_activation",),),
    "vision_config.hidden_act": (("activation",),),
}
# Values of config.json that have another name here.
VALUES = {"gelu_pytorch_tanh": "gelu_tanh"}


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """How a file will be converted.

    Args:
        found: the recognized file, with the final sizes.
        node: config of the model.
        model: the model, with new weights.
        head: head of the file that becomes the task; None if none does.
        task: config of the task.
        dropped: names that are left out, by reason.
        settings: settings by full name, such as `processor.max_tokens`; without those of the vocabulary.
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
    answers: Path | str | None = None,
) -> ConversionPlan:
    """Recognize a file, and decide on its model, its task and their settings.

    Args:
        given: content of the file.
        source: the source as the user wrote it, for error messages.
        overrides: settings by node, see `nested`.
        device: device of the model; `meta` takes no memory.
        family: expected family. None accepts any.
        head: name of the head that becomes the task. None takes the first one that fits.
        answers: table that names the answers of a head. None numbers them.

    Raises:
        ConfigError: a size is unknown, or the family or head does not exist.
        CheckpointMismatch: the weights fit no family or several, or have unknown names.
    """
    found = recognize(given.weights, FAMILIES, where=source, asked=family)
    node = _settle(found, given.config, overrides.get("model", {}), where=source)
    with torch.device(device):
        model = build(node)
    # With the final sizes, because heads and settings follow from them (UNITER's readout needs `heads`).
    found = replace(found, sizes={name: value for name, value in node.items() if name != "_target_"})
    chosen = choose_head(found, model.dim, asked=head, where=source)
    taken_head = chosen[0] if chosen else None
    # Without a head, the bundle gets a new one for two classes, to be fine-tuned: the usual next step.
    task, count = (chosen[1], chosen[2]) if chosen else ({"_target_": "diptych.tasks.Classify"}, 2)
    use = Use(found=found, head=taken_head.name if taken_head else "", task=task, count=count)
    names = _named(use)
    task = task | {name.removeprefix("task."): setting.value for name, setting in names.items()}
    if answers is not None:
        names = names | table_setting(task, answers, where=source)
        # Nested, because the answers of a pre-training lie in one of its objectives.
        task = merged(task, nested({name: setting.value for name, setting in names.items()})["task"])
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
    """Config of the model: sizes from the shapes, then from `config.json`, then from the user."""
    sizes = copy.deepcopy(found.sizes)  # nested nodes are changed below
    config = _flat(config)
    for name, paths in SETTINGS.items():
        for path in paths:
            inner = sizes.get(path[0]) if len(path) == 2 else sizes
            if name in config and isinstance(inner, dict) and path[-1] in inner:
                inner[path[-1]] = VALUES.get(config[name], config[name])
    # Where the two streams meet shows in no tensor, only how often.
    if "meetings" in sizes and {"t_biattention_id", "v_biattention_id"} <= config.keys():
        pairs = zip(config["t_biattention_id"], config["v_biattention_id"], strict=True)
        sizes["meetings"] = [list(pair) for pair in pairs]
    sizes = merged(sizes, overrides)
    if unknown := [f"model.{name}" for name in _unknown(sizes)]:
        raise ConfigError(
            f"{where}: this {found.family.name} has no published size, and tensors do not show "
            f"{', '.join(unknown)}. Set {unknown[0]}=NUMBER."
        )
    # Two-stream models have their layers inside of `text`. The builder of a published size reads well in
    # a bundle; all sizes are given to it, so it builds the same model as the class.
    depth = sizes if "layers" in sizes else sizes.get("text", {})
    builder = found.family.builders.get((depth.get("dim", 0), depth.get("layers", 0)))
    return {"_target_": f"diptych.models.{builder or found.family.model.__name__}", **sizes}


def _flat(config: Mapping[str, Any]) -> Node:
    """A config.json with the settings of its towers beside its own, such as `text_config.hidden_act`."""
    towers = {name: value for name, value in config.items() if isinstance(value, Mapping)}
    return {
        **config,
        **{f"{name}.{key}": value for name, own in towers.items() for key, value in own.items()},
    }


def merged(node: Mapping[str, Any], overrides: Mapping[str, Any]) -> Node:
    """Return a node with other settings; nodes inside of it are merged, too."""
    result = dict(node)
    for name, value in overrides.items():
        inner = result.get(name)
        nodes = isinstance(value, Mapping) and isinstance(inner, Mapping)
        # A mapping that replaces a plain value, or the other way round, is taken as it is.
        result[name] = merged(inner or {}, value) if nodes else value
    return result


def nested(overrides: Mapping[str, Any]) -> Node:
    """Convert settings to nested nodes: `{"model.heads": 4}` becomes `{"model": {"heads": 4}}`.

    Raises:
        ConfigError: a node does not exist, or a key is both a value and a node.
    """
    tree: Node = {}
    for key, value in overrides.items():
        first, *rest = str(key).split(".")
        # From the inside out: `a.b.c` and 1 become {"b": {"c": 1}} below `a`.
        for name in reversed(rest):
            value = {name: value}
        if not isinstance(value, Mapping) or not isinstance(tree.get(first, {}), Mapping):
            raise ConfigError(f"{key} is {value!r}; expected settings below it, such as {first}.KEY.")
        tree[first] = merged(tree.get(first, {}), value)
    if unknown := tree.keys() - {"model", "processor", "task"}:
        raise ConfigError(f"there is no node {min(unknown)!r}; expected model, processor or task.")
    return tree


def _unknown(node: Mapping[str, Any], above: str = "") -> list[str]:
    """Names of numbers of attention heads that are still unknown."""
    names = [above + name for name, value in node.items() if name == "heads" and value is None]
    inner = [(name, value) for name, value in node.items() if isinstance(value, Mapping)]
    return names + [path for name, value in inner for path in _unknown(value, f"{above}{name}.")]


def processor_for(
    plan: ConversionPlan, given: Source, vocabulary: Path | str | None, *, overrides: Mapping[str, Any]
) -> tuple[Node, Settings]:
    """Return the config of the processor with the vocabulary of the weights, and the origin of its settings.

    Raises:
        ConfigError: there is no vocabulary, it does not fit the word embedding, or a setting does not fit.
    """
    # The vocabulary must fit the weights, not the other way round, so the rows of the model decide.
    rows = plan.model.word_embedding().num_embeddings
    path = vocabulary_of(given, vocabulary)
    if path is None:
        raise ConfigError(
            f"{given.path}: there is no vocabulary beside the weights; set vocabulary=FILE. These weights "
            f"need {published(rows)}."
        )
    text, found = tokenizer_for(plan.found.family, rows, path=path)
    settings = _dotted(found) | plan.settings
    node: Node = {"_target_": "diptych.data.Processor", "text": text}
    for name, setting in settings.items():
        if name.startswith("processor."):
            inner = node["text"] if name.startswith("processor.text.") else node
            inner[name.rpartition(".")[2]] = setting.value
    # The user's settings come last, after all that was found out or assumed.
    node = merged(node, overrides.get("processor", {}))
    # Build it once as a bundle would, so that invalid settings are found before anything is written.
    path = Path(node["text"]["vocabulary"]).resolve()
    text = {**node["text"], "vocabulary": f"{HERE}/{path.name}"}
    build({**node, "text": text}, where="settings", key="processor", folder=path.parent)
    return node, settings | asked(overrides)


def asked(overrides: Mapping[str, Any], above: str = "") -> Settings:
    """Return the settings that the user set, by full name."""
    settings: Settings = {}
    for name, value in overrides.items():
        inner = isinstance(value, Mapping)
        settings |= (
            asked(value, f"{above}{name}.") if inner else {above + name: Setting(value, "set by the user")}
        )
    return settings


def vocabulary_of(given: Source, vocabulary: Path | str | None) -> Path | None:
    """Return the vocabulary that the user gave, else the one beside the weights; None if there is none."""
    return find(vocabulary) if vocabulary is not None else given.vocabulary


def _sizes(found: RecognizedCheckpoint, config: Mapping[str, Any]) -> Settings:
    """Sizes of the model as settings, with their origin."""
    config = _flat(config)
    configured = {path[0] for name, paths in SETTINGS.items() if name in config for path in paths}
    settings = {}
    for name, value in found.sizes.items():
        why = found.family.habits.get(name, "the file: shapes of its tensors")
        if name in configured and name in found.family.habits:
            why = "the file: its config.json"
        if name == "heads" or (isinstance(value, Mapping) and "heads" in value):
            origin = "of its config.json" if name in configured else "of the published width"
            why = f"{why}; heads {origin}" if name != "heads" else f"the file: heads {origin}"
        settings[f"model.{name}"] = Setting(value, why)
    return settings


def _settings(use: Use) -> Settings:
    """Settings of the processor: diptych's defaults, then the family's, limited by its positions."""
    family, sizes = use.found.family, use.found.sizes
    settings = {"max_tokens": Setting(128, DEFAULT)}
    if family.regions:
        settings["regions"] = Setting(True, "the file: its model reads regions")
        settings["max_regions"] = Setting(100, DEFAULT)
    settings |= family.processor(use)
    # The second is that of a BERT alone, whose sizes lie in its tower.
    rows: int = sizes["max_positions"] if "max_positions" in sizes else sizes["text"]["max_positions"]
    room = rows - sizes.get("first_position", 0) - family.places
    tokens = settings["max_tokens"]
    if tokens.value is None or tokens.value > room:  # a longer text would index beyond the position table
        settings["max_tokens"] = Setting(room, f"{tokens.why}; the file: its positions allow {room}")
    return _dotted(settings)


def _dotted(settings: Settings) -> Settings:
    """The same settings by full name."""
    return {f"processor.{'text.' * (name in TOKENIZER)}{name}": value for name, value in settings.items()}


def _named(use: Use) -> Settings:
    """Names of the classes or answers: those of a known benchmark, else numbers."""
    if use.kind not in ("Answer", "Classify"):
        return {}
    names, why = [str(number) for number in range(use.count)], "default: the file has no names"
    if not use.head:
        names, why = list(MEMES.labels), f"default: a new head for {MEMES.name}"
    # Only heads of two classes: their order in published files is known (0 is benign, or False).
    elif use.kind == "Classify" and use.count == 2 and (known := use.found.family.benchmark(use)):
        names, why = list(known[0].labels), f"{known[1]}, so {known[0].name}"
    return {"task.answers" if use.kind == "Answer" else "task.labels": Setting(names, why)}
