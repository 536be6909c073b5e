"""Bundles from files of others, and the way back to their names."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from diptych.bundle import find_bundle, load_bundle, write_bundle
from diptych.convert.families import FAMILIES
from diptych.convert.family import Family, RecognizedCheckpoint
from diptych.convert.fetch import Progress, find
from diptych.convert.load import read_source
from diptych.convert.plan import asked, nested, plan_for, processor_for, vocabulary_of
from diptych.convert.recognize import recognize
from diptych.convert.report import Inspection, card_of, reason_for, report_on
from diptych.convert.rules import Rule, load_into, restore, taken
from diptych.errors import CheckpointMismatch, ConfigError
from diptych.files import atomic_file, atomic_folder, require_new, reserved
from diptych.nodes import build
from diptych.types import FeatureMeta


def inspect_checkpoint(
    source: Path | str,
    *,
    vocabulary: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """What a weight file is and holds; nothing is written but the cache of downloads.

    Args:
        vocabulary, overrides: see `convert_checkpoint`; without a vocabulary, case is not known.

    Raises:
        ConfigError: there is no such source, or the vocabulary does not fit.
        FormatError: it holds no weights.
    """
    wanted = nested(overrides or {})
    given = read_source(find(source, progress=progress))
    try:
        found = recognize(given.weights, FAMILIES, where=source, asked=None)
    except CheckpointMismatch as error:
        return report_on(given, source, None, reason=str(error))
    reason = reason_for(found.family)
    try:
        plan = plan_for(given, source, overrides=wanted, device="meta")
    except (CheckpointMismatch, ConfigError) as error:
        report = report_on(given, source, None, reason=f"{reason}; not convertible as it is: {error}")
        return replace(report, family=found.family.name, prefix=found.split.prefix)
    settings = plan.settings | asked(wanted)
    if vocabulary_of(given, vocabulary) is not None:
        _, settings = processor_for(plan, given, vocabulary, overrides=wanted)
    return report_on(given, source, plan, reason=reason, settings=settings)


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
            say: `{"model.heads": 4}`, or `{"model": {"heads": 4}}`.

    Raises:
        ConfigError: no such source, vocabulary or head; a vocabulary or setting that does not fit.
        FormatError: the file holds no weights, or is damaged.
        CheckpointMismatch: no family or several fit, or names are missing or unaccounted for.
    """
    inputs = [source] if vocabulary is None else [source, vocabulary]
    require_new(out, overwrite=overwrite, kind="a bundle", inputs=inputs)
    given = read_source(find(source, progress=progress))
    wanted = nested(overrides or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # parts that stay new come out the same every time
        plan = plan_for(given, source, overrides=wanted, device="cpu", family=family, head=head)
        task = build(plan.task, model=plan.model)
    found = plan.found
    processor, settings = processor_for(plan, given, vocabulary, overrides=wanted)
    found.family.fill(plan.model, found.split, where=source)
    own = {} if plan.head is None else taken(found.split.heads, plan.head.table)
    if plan.head is not None:
        load_into(task, own, plan.head.table, where=source)
    report = report_on(given, source, plan, reason=reason_for(found.family), settings=settings)
    told = Path(source).name if Path(source).exists() else str(source)  # folders are this machine's affair
    width = found.sizes.get("feature_dim")
    with atomic_folder(out, kind="a bundle", overwrite=overwrite, inputs=inputs) as beside:
        write_bundle(
            beside,
            model=plan.model,
            task=task,
            nodes={"model": plan.node, "processor": processor, "task": plan.task},
            features=None if width is None else FeatureMeta(feature_dim=width),
            provenance={
                "name": found.family.name,
                "converted": _way_back(found, own) | {"source": told, "new": report.new},
            },
        )
        card = card_of(replace(report, source=told), found.family)
        (beside / "README.md").write_text(card, encoding="utf-8")
    return report


def restore_checkpoint(bundle: Path | str, out: Path | str, *, overwrite: bool = False) -> int:
    """Write the weights of a bundle under the names of the original, as safetensors.

    The head goes back as long as it is the one that was converted: after a training here, it stays behind.

    Returns:
        the number of tensors.

    Raises:
        ConfigError: the model is of no family that others publish.
    """
    inputs = find_bundle(Path(bundle)).rglob("*")
    require_new(out, overwrite=overwrite, kind="a safetensors file", inputs=inputs)
    loaded = load_bundle(Path(bundle))
    about = loaded.provenance.get("converted", {})
    family = next((one for one in FAMILIES if one.model is type(loaded.model)), None)
    if family is None:
        raise ConfigError(f"{bundle}: nobody publishes weights of a {type(loaded.model).__name__}.")
    place = {"prefix": about.get("prefix", ""), "head_prefix": about.get("outer", "")}
    absent = about.get("absent", ())
    table = [line for line in family.table if not isinstance(line, Rule) or line.sources[0] not in absent]
    weights = {
        family.backbone.original(name, head=False, **place): one
        for name, one in restore(loaded.model.state_dict(), table).items()
    }
    own = _restore_head(family, loaded.task, set(about.get("head", ())))
    weights |= {family.backbone.original(name, head=True, **place): one for name, one in own.items()}
    with reserved(out, overwrite=overwrite, kind="a safetensors file"), atomic_file(out) as file:
        file.write(save({name: one.contiguous() for name, one in weights.items()}))
    return len(weights)


def _way_back(found: RecognizedCheckpoint, head: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `restore_checkpoint` cannot see in the weights; the keys stand in bundles that people keep.

    `absent` are rules without a name in the file: another spelling of what it has, or what stays new.
    """
    rules = [line for line in found.family.table if isinstance(line, Rule)]
    return {
        "family": found.family.name,
        "prefix": found.split.prefix,
        "outer": found.split.head_prefix,
        "head": sorted(head),
        "absent": [rule.sources[0] for rule in rules if not taken(found.split.backbone, [rule])],
    }


def _restore_head(family: Family, task: nn.Module, names: set[str]) -> dict[str, Tensor]:
    """The weights of a task under these names, by the table that leads to them."""
    for head in family.heads if names else ():
        with suppress(CheckpointMismatch):
            own = restore(task.state_dict(), head.table)
            if own.keys() == names:
                return own
    return {}
