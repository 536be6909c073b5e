"""Conversion of third-party checkpoints to bundles, and of bundles back to the original names."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from diptych.bundle import find_bundle, load_bundle, write_bundle
from diptych.convert.answers import warn_of_numbers
from diptych.convert.families import FAMILIES
from diptych.convert.family import Family, RecognizedCheckpoint
from diptych.convert.fetch import Progress, find
from diptych.convert.load import Source, read_source
from diptych.convert.plan import ConversionPlan, asked, nested, plan_for, processor_for, vocabulary_of
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
    answers: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Report what a weight file contains and how it would be converted. Writes only the download cache.

    Args:
        source: see `diptych.convert.find`.
        vocabulary: see `convert_checkpoint`. Without it, the report does not say if texts are lowercased.
        answers: see `convert_checkpoint`.
        overrides: see `convert_checkpoint`.
        progress: called with the bytes done and the bytes in all of a download.

    Raises:
        ConfigError: the source does not exist, or the vocabulary does not fit.
        FormatError: the file has no weights.
    """
    wanted = nested(overrides or {})
    given = read_source(find(source, progress=progress))
    try:
        recognized = recognize(given.weights, FAMILIES, where=source, asked=None)
    except CheckpointMismatch as error:
        return report_on(given, source, None, reason=str(error))
    reason = reason_for(recognized.family)
    try:
        # On the meta device, sizes are compared without memory for a second copy of the model.
        plan = plan_for(given, source, overrides=wanted, device="meta", answers=answers)
    except (CheckpointMismatch, ConfigError) as error:
        report = report_on(given, source, None, reason=f"{reason}; cannot be converted as it is: {error}")
        return replace(report, family=recognized.family.name, prefix=recognized.split.prefix)
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
    answers: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Convert a third-party checkpoint to a bundle.

    Args:
        source: see `diptych.convert.find`.
        vocabulary: `vocab.txt` of the weights, from any such source. None takes the one beside the weights.
        family: expected family. Files of other families are refused.
        head: name of the head that becomes the task. None takes the first one that diptych has a task for.
        answers: table of the answers of a head, such as LXMERT's `trainval_label2ans.json`. Without it,
            answers are numbered, with a warning if there are as many as in a published table.
        overrides: settings of `model`, `processor` and `task`, such as `{"model.heads": 4}`; see `nested`.
        overwrite: replace a bundle at `out`.
        progress: called with the bytes done and the bytes in all of a download.

    Raises:
        ConfigError: the source, vocabulary or head does not exist, or one of them or a setting does not fit.
        FormatError: the file has no weights, or is damaged.
        CheckpointMismatch: the weights fit no family or several, or names are missing or unknown.
    """
    inputs = [source] if vocabulary is None else [source, vocabulary]
    require_new(out, overwrite=overwrite, kind="a bundle", inputs=inputs)  # before a download of gigabytes
    given = read_source(find(source, progress=progress))
    wanted = nested(overrides or {})
    plan, task = _build(given, source, overrides=wanted, family=family, head=head, answers=answers)
    recognized = plan.found
    processor, settings = processor_for(plan, given, vocabulary, overrides=wanted)
    recognized.family.fill(plan.model, recognized.split, where=source)
    own = {} if plan.head is None else taken(recognized.split.heads, plan.head.table)
    if plan.head is not None:
        load_into(task, own, plan.head.table, where=source)
    report = report_on(given, source, plan, reason=reason_for(recognized.family), settings=settings)
    # A bundle travels: of a local file it records the name only, not the folders of this machine.
    told = Path(source).name if Path(source).exists() else str(source)
    width = recognized.sizes.get("feature_dim")
    with atomic_folder(out, kind="a bundle", overwrite=overwrite, inputs=inputs) as beside:
        write_bundle(
            beside,
            model=plan.model,
            task=task,
            nodes={"model": plan.node, "processor": processor, "task": plan.task},
            features=None if width is None else FeatureMeta(feature_dim=width),
            provenance={
                "name": recognized.family.name,
                "converted": _way_back(recognized, own) | {"source": told, "new": report.new},
            },
        )
        card = card_of(replace(report, source=told), recognized.family)
        (beside / "README.md").write_text(card, encoding="utf-8")
    return report


def _build(given: Source, source: Path | str, **asked_for: Any) -> tuple[ConversionPlan, nn.Module]:
    """Build the model and the task of a file, with random weights; for the arguments see `plan_for`."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(0)  # parts that the file does not fill are equal in every conversion
        plan = plan_for(given, source, device="cpu", **asked_for)
        task = build(plan.task, model=plan.model)
    warn_of_numbers(plan.task, source)
    return plan, task


def restore_checkpoint(bundle: Path | str, out: Path | str, *, overwrite: bool = False) -> int:
    """Write the weights of a bundle under their original names, as a safetensors file.

    The head is included only if it still is the converted one. A head that was trained for another task has
    no original names.

    Returns:
        Number of tensors.

    Raises:
        ConfigError: the model belongs to no published family.
    """
    inputs = find_bundle(Path(bundle)).rglob("*")
    require_new(out, overwrite=overwrite, kind="a safetensors file", inputs=inputs)
    loaded = load_bundle(Path(bundle))
    about = loaded.provenance.get("converted", {})
    family = next((family for family in FAMILIES if family.model is type(loaded.model)), None)
    if family is None:
        published = ", ".join(sorted({family.model.__name__ for family in FAMILIES}))
        raise ConfigError(
            f"{bundle}: there are no published weights of a {type(loaded.model).__name__}, so it has no "
            f"original names; expected one of {published}."
        )
    place = {"prefix": about.get("prefix", ""), "head_prefix": about.get("outer", "")}
    # Otherwise the first spelling in the table would be written, not that of the file.
    absent = about.get("absent", ())
    table = [line for line in family.table if not isinstance(line, Rule) or line.sources[0] not in absent]
    weights = {
        family.backbone.original(name, head=False, **place): tensor
        for name, tensor in restore(loaded.model.state_dict(), table).items()
    }
    own = _restore_head(family, loaded.task, set(about.get("head", ())))
    weights |= {family.backbone.original(name, head=True, **place): tensor for name, tensor in own.items()}
    # `reserved` keeps a second process from writing to the same place in the meantime.
    with reserved(out, overwrite=overwrite, kind="a safetensors file"), atomic_file(out) as file:
        # safetensors refuses tensors that are not contiguous, such as transposed ones
        file.write(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    return len(weights)


def _way_back(recognized: RecognizedCheckpoint, head: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `restore_checkpoint` needs and the weights do not show. The keys are part of the bundle format.

    `absent` lists rules whose names the file does not have: alternative spellings, and parts that stay new.
    """
    rules = [line for line in recognized.family.table if isinstance(line, Rule)]
    return {
        "family": recognized.family.name,
        "prefix": recognized.split.prefix,
        "outer": recognized.split.head_prefix,
        "head": sorted(head),
        # By the first source, which alone finds the places of a rule.
        "absent": [rule.sources[0] for rule in rules if not taken(recognized.split.backbone, [rule])],
    }


def _restore_head(family: Family, task: nn.Module, names: set[str]) -> dict[str, Tensor]:
    """Weights of a task under exactly these original names; empty if no table of the family leads to them."""
    for head in family.heads if names else ():
        # Several tables may fit the weights of a task; the right one gives all names that the file had.
        with suppress(CheckpointMismatch):
            own = restore(task.state_dict(), head.table)
            if own.keys() == names:
                return own
    return {}
