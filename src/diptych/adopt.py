"""Weight files of others as bundles of diptych, and the way back to their names.

Above `bundle`, because it writes one; what files of a family look like is said in `convert`.
"""

import copy
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor, nn

from diptych.bundle import build, load_bundle, write_bundle
from diptych.convert import (
    FAMILIES,
    Family,
    Found,
    Head,
    Source,
    choose_head,
    dropped,
    find,
    kept,
    load_into,
    read_source,
    recognize,
    restore,
)
from diptych.convert.fetch import Progress
from diptych.convert.rules import taken
from diptych.datasets.hateful_memes import LABELS
from diptych.errors import CheckpointMismatch, ConfigError
from diptych.files import atomic_file, atomic_folder, require_new
from diptych.text import WordPiece
from diptych.types import FeatureMeta

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
class Inspection:
    """What a weight file is and holds.

    Args:
        kind: of file.
        family: None where none fits; `reason` says why this one or none.
        model: the call that builds the model.
        parameters: numbers in all tensors, `dtypes` tensors by number type.
        groups: tensors and parameters by the beginnings of names.
        head: of the file, and the task that it becomes; None where no task takes any.
        dropped: names that are left out, by reason.
        new: names of diptych that the file does not fill, by reason.
    """

    source: str
    kind: str
    family: str | None
    reason: str
    prefix: str = ""
    model: Node = field(default_factory=dict)
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    groups: dict[str, tuple[int, int]]
    head: tuple[str, str] | None = None
    dropped: dict[str, list[str]] = field(default_factory=dict)
    new: dict[str, list[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a file becomes, before any weight is moved; `found` with settled sizes."""

    found: Found
    node: Node
    model: Any
    head: Head | None
    task: Node
    dropped: dict[str, list[str]]


def inspect_checkpoint(
    source: Path | str, *, overrides: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> Inspection:
    """What a weight file is and holds; nothing is written but the cache of downloads.

    Args:
        overrides: see `convert_checkpoint`.

    Raises:
        ConfigError: there is no such source.
        FormatError: it holds no weights.
    """
    given = read_source(find(source, progress=progress))
    try:
        found = recognize(given.weights, FAMILIES, where=source, asked=None)
    except CheckpointMismatch as error:
        return _report(given, source, None, reason=str(error))
    reason = _reason(found.family)
    try:
        plan = _plan(given, source, overrides=overrides or {}, device="meta")
    except (CheckpointMismatch, ConfigError) as error:
        report = _report(given, source, None, reason=f"{reason}; not convertible as it is: {error}")
        return replace(report, family=found.family.name, prefix=found.parted.prefix)
    return _report(given, source, plan, reason=reason)


def convert_checkpoint(
    source: Path | str,
    out: Path | str,
    *,
    vocabulary: Path | str | None = None,
    family: str | None = None,
    head: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Write a bundle with the weights of somebody else's file.

    Args:
        source: see `diptych.convert.find`.
        vocabulary: `vocab.txt` of the weights, from any such source; None takes the one beside the weights.
        family: refuse files of another one.
        head: that becomes the task, of several; None takes the first that diptych has a task for.
        overrides: settings of the nodes `model`, `processor` and `task`, such as numbers that shapes do not
            say (`{"model": {"heads": 4}}`).

    Raises:
        ConfigError: no such source, vocabulary or head; a vocabulary or setting that does not fit.
        FormatError: the file holds no weights, or is damaged.
        CheckpointMismatch: no family or several fit, or names are missing or unaccounted for.
    """
    require_new(out, overwrite=overwrite)
    given = read_source(find(source, progress=progress))
    wanted = dict(overrides or {})
    if unknown := wanted.keys() - {"model", "processor", "task"}:
        raise ConfigError(f"there is no node {min(unknown)!r}; say model., processor. or task.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # parts that stay new come out the same every time
        plan = _plan(given, source, overrides=wanted, device="cpu", family=family, head=head)
        task = build(plan.task, model=plan.model)
    found = plan.found
    processor = _merged(_processor(plan, given, vocabulary), wanted.get("processor", {}))
    found.family.fill(plan.model, dict(given.weights), where=source)
    own = {} if plan.head is None else taken(found.parted.rest, plan.head.table)
    if plan.head is not None:
        load_into(task, own, plan.head.table, where=source)
    report = _report(given, source, plan, reason=_reason(found.family))
    about = {
        "name": found.family.name,
        "converted": {
            "source": str(source),
            "family": found.family.name,
            "prefix": found.parted.prefix,
            "outer": found.parted.outer,
            "head": sorted(own),
            "dropped": {reason: len(names) for reason, names in report.dropped.items()},
            "new": report.new,
        },
    }
    width = found.sizes.get("feature_dim")
    with atomic_folder(out, overwrite=overwrite) as beside:
        write_bundle(
            beside,
            model=plan.model,
            task=task,
            nodes={"model": plan.node, "processor": processor, "task": plan.task},
            features=None if width is None else FeatureMeta(feature_dim=width),
            provenance=about,
        )
        (beside / "README.md").write_text(_card(report, found.family), encoding="utf-8")
    return report


def restore_checkpoint(bundle: Path | str, out: Path | str, *, overwrite: bool = False) -> int:
    """Write the weights of a bundle under the names of the original, as safetensors.

    The head goes back as long as it is the one that was converted: after a training here, it stays behind.

    Returns:
        the number of tensors.

    Raises:
        ConfigError: the model is of no family that others publish.
    """
    require_new(out, overwrite=overwrite)
    loaded = load_bundle(Path(bundle))
    about = loaded.provenance.get("converted", {})
    family = next((one for one in FAMILIES if one.model is type(loaded.model)), None)
    if family is None:
        raise ConfigError(f"{bundle}: nobody publishes weights of a {type(loaded.model).__name__}.")
    place = {"prefix": about.get("prefix", ""), "outer": about.get("outer", "")}
    new = {name for names in about.get("new", {}).values() for name in names}
    state = {name: one for name, one in loaded.model.state_dict().items() if name not in new}
    weights = {
        family.original(name, head=False, **place): one for name, one in restore(state, family.table).items()
    }
    own = _restore_head(family, loaded.task, set(about.get("head", ())))
    weights |= {family.original(name, head=True, **place): one for name, one in own.items()}
    with atomic_file(out) as file:
        file.write(save({name: one.contiguous() for name, one in weights.items()}))
    return len(weights)


def _restore_head(family: Family, task: nn.Module, names: set[str]) -> dict[str, Tensor]:
    """The weights of a task under these names, by the table that leads to them."""
    for head in family.heads if names else ():
        with suppress(CheckpointMismatch):
            own = restore(task.state_dict(), head.table)
            if own.keys() == names:
                return own
    return {}


def certificate(family: str) -> dict[str, dict[str, Any]]:
    """The goldens that a family was compared with, each with the largest difference (`make certificate`)."""
    stored = json.loads((files("diptych.convert") / "parity.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = stored.get(family, {})
    return found


def _plan(
    given: Source,
    source: object,
    *,
    overrides: Mapping[str, Any],
    device: str,
    family: str | None = None,
    head: str | None = None,
) -> _Plan:
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
    return _Plan(
        found=found,
        node=node,
        model=model,
        head=taken_head,
        task=_merged(task, overrides.get("task", {})),
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
    sizes = _merged(sizes, overrides)
    if unknown := [f"model.{name}" for name in _unsaid(sizes)]:
        raise ConfigError(
            f"{where}: a {found.family.name} of a size that nobody published, and tensors do not say "
            f"{', '.join(unknown)}. Say it: {unknown[0]}=NUMBER."
        )
    depth = sizes if "layers" in sizes else sizes.get("text", {})
    builder = found.family.builders.get((depth.get("dim", 0), depth.get("layers", 0)))
    return {"_target_": f"diptych.models.{builder or found.family.model.__name__}", **sizes}


def _merged(node: Mapping[str, Any], overrides: Mapping[str, Any]) -> Node:
    """A node with other settings, down to nodes inside of it."""
    result = dict(node)
    for name, value in overrides.items():
        inner = result.get(name)
        nodes = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[name] = _merged(inner or {}, value) if nodes else value
    return result


def _unsaid(node: Mapping[str, Any], above: str = "") -> list[str]:
    """Names of the numbers that are still open."""
    found = [above + name for name, value in node.items() if name == "heads" and value is None]
    inner = [(name, value) for name, value in node.items() if isinstance(value, Mapping)]
    return found + [one for name, value in inner for one in _unsaid(value, f"{above}{name}.")]


def _processor(plan: _Plan, given: Source, vocabulary: Path | str | None) -> Node:
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
    cased = any(token[:1].isupper() for token in tokens)
    return {
        "_target_": "diptych.data.Processor",
        "text": {"_target_": "diptych.text.WordPiece", "vocabulary": str(path), "lowercase": not cased},
        "max_tokens": 128,
        "max_regions": 100,
        **plan.found.family.processor(plan.found.sizes),
    }


def _reason(family: Family) -> str:
    return f"{family.title}, known by {' and '.join(sorted(family.marks))}"


def _report(given: Source, source: Path | str, plan: _Plan | None, *, reason: str) -> Inspection:
    groups: dict[str, tuple[int, int]] = {}
    for name, one in given.weights.items():
        key = ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0]
        tensors, numbers = groups.get(key, (0, 0))
        groups[key] = (tensors + 1, numbers + one.numel())
    report = Inspection(
        source=str(source),
        kind=given.kind,
        family=None,
        reason=reason,
        tensors=len(given.weights),
        parameters=sum(one.numel() for one in given.weights.values()),
        dtypes=dict(Counter(str(one.dtype).removeprefix("torch.") for one in given.weights.values())),
        groups=groups,
        dropped=given.junk,
    )
    if plan is None:
        return report
    found = plan.found
    new = kept(found.parted.backbone, found.family.table, plan.model.state_dict())
    numbered = [name for name in ("labels", "answers") if plan.task.get(name, ())[:1] == ["0"]]
    if numbered:
        new[f"names instead of numbers; say task.{numbered[0]}=@FILE"] = [f"task.{numbered[0]}"]
    if plan.head is None:
        new["the file holds no head that diptych has a task for"] = ["task.head"]
    return replace(
        report,
        family=found.family.name,
        prefix=found.parted.prefix,
        model=plan.node,
        head=None if plan.head is None else (plan.head.name, str(plan.task["_target_"])),
        dropped=plan.dropped,
        new=new,
    )


def _card(report: Inspection, family: Family) -> str:
    """The model card: what it is, what was left out and stays new, and how equal the family was found."""
    proofs = [
        f"| `{name}` | {entry['compared']} | {entry['worst']:.1e} |"
        for name, entry in sorted(certificate(family.name).items())
    ]
    left = [f"| {reason} | {len(names)} | `{names[0]}` |" for reason, names in report.dropped.items()]
    new = [f"| {reason} | {len(names)} | `{names[0]}` |" for reason, names in report.new.items()]
    head = "none; the head of the task is new" if report.head is None else f"`{report.head[0]}`"
    return "\n".join(
        (
            f"# {family.title}",
            "",
            f"A diptych bundle, converted from `{report.source}` ({report.kind}).",
            "Use it with `diptych predict`, `diptych.load(folder)`, or train it on: `weights.model=FOLDER`.",
            "",
            "```yaml",
            yaml.safe_dump(report.model, sort_keys=False).rstrip(),
            "```",
            "",
            f"Head of the file that became the task: {head}.",
            *_section("Left out", "| why | tensors | first |", left),
            *_section("Stays new", "| why | tensors | first |", new),
            *_section("Equal to the original", "| golden | compared | largest difference |", proofs),
            "",
            "The last table was measured with tiny random weights in fp32, of outputs, losses and gradients;",
            "differences are shares of the largest number compared where that is above 1.",
            "",
        )
    )


def _section(title: str, columns: str, rows: list[str]) -> list[str]:
    rule = "|" + "---|" * (columns.count("|") - 1)
    return ["", f"## {title}", "", columns, rule, *rows] if rows else ["", f"## {title}", "", "Nothing."]
