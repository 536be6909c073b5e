"""Inspection report for a third-party checkpoint, and the model card of the converted bundle."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from diptych.card import head
from diptych.convert.family import Family
from diptych.convert.load import Source
from diptych.convert.plan import ConversionPlan
from diptych.convert.rules import kept
from diptych.convert.settings import Settings
from diptych.documents import shorten

Node = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a weight file contains, and how it is converted.

    Args:
        source: the source as the user wrote it.
        kind: kind of the file.
        family: name of the family, or None if none fits.
        reason: why it is this family, or none.
        prefix: what the file puts before the names of the backbone.
        model: config of the model.
        tensors: number of tensors.
        parameters: number of values in all tensors.
        dtypes: number of tensors by type of number.
        groups: numbers of tensors and parameters by the first parts of their names.
        head: head of the file and the task that it becomes; None if no head becomes a task.
        dropped: names that are left out, by reason.
        new: names of diptych that the file does not fill, by reason.
        settings: value and origin of each setting.
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
    settings: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def certificate(family: str) -> dict[str, dict[str, Any]]:
    """Return the reference outputs that a family was compared with, each with the largest difference.

    `make certificate` measures them.
    """
    # Through importlib, because an installed package may be a ZIP file.
    stored = json.loads((files("diptych.convert") / "parity.json").read_text(encoding="utf-8"))
    entries: dict[str, dict[str, Any]] = stored.get(family, {})
    return entries


def reason_for(family: Family) -> str:
    """Say by which names a file of a family was recognized."""
    return f"{family.title}, recognized by {' and '.join(sorted(family.required))}"


def report_on(
    given: Source,
    source: Path | str,
    plan: ConversionPlan | None,
    *,
    reason: str,
    settings: Settings | None = None,
) -> Inspection:
    """Describe a file and, if there is a plan, its conversion."""
    groups: dict[str, tuple[int, int]] = {}
    for name, tensor in given.weights.items():
        # The first two parts of a name, or the first one if the second is already that of the tensor.
        key = ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0]
        tensors, numbers = groups.get(key, (0, 0))
        groups[key] = (tensors + 1, numbers + tensor.numel())
    report = Inspection(
        source=str(source),
        kind=given.kind,
        family=None,
        reason=reason,
        tensors=len(given.weights),
        parameters=sum(tensor.numel() for tensor in given.weights.values()),
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in given.weights.values())),
        groups=groups,
        dropped=given.junk,
    )
    if plan is None:
        return report
    found = plan.found
    new = kept(found.split.backbone, found.family.table, plan.model.state_dict())
    # `_named` in `plan` numbers names from "0" where the file has none.
    numbered = [name for name in ("labels", "answers") if plan.task.get(name, ())[:1] == ["0"]]
    if numbered:
        option = "--answers FILE or " if numbered[0] == "answers" else ""
        new[f"numbers instead of names; set {option}task.{numbered[0]}=@FILE"] = [f"task.{numbered[0]}"]
    if plan.head is None:
        new["the file has no head that diptych has a task for"] = ["task.head"]
    return replace(
        report,
        family=found.family.name,
        prefix=found.split.prefix,
        model=plan.node,
        head=None if plan.head is None else (plan.head.name, str(plan.task["_target_"])),
        dropped=plan.dropped,
        new=new,
        settings={name: (setting.value, setting.why) for name, setting in (settings or {}).items()},
    )


def card_of(report: Inspection, family: Family) -> str:
    """Write the model card: settings, what was left out, what stays new, and the comparison of the family."""
    proofs = [
        f"| `{name}` | {entry['compared']} | {entry['worst']:.1e} |"
        for name, entry in sorted(certificate(family.name).items())
    ]
    settings = [
        f"| `{name}` | `{shorten(value)}` | {why} |" for name, (value, why) in report.settings.items()
    ]
    left = [f"| {reason} | {len(names)} | `{names[0]}` |" for reason, names in report.dropped.items()]
    new = [f"| {reason} | {len(names)} | `{names[0]}` |" for reason, names in report.new.items()]
    begin = head(
        model=str(report.model.get("_target_", "")),
        task="" if report.head is None else report.head[1],
        name=family.name,
    )
    becomes = "none; the head of the task is new" if report.head is None else f"`{report.head[0]}`"
    return begin + "\n".join(
        (
            "",
            f"# {family.title}",
            "",
            f"A diptych bundle, converted from `{report.source}` ({report.kind}).",
            "Use it with `diptych predict`, `diptych.load(folder)`, or fine-tune it: `weights.model=FOLDER`.",
            "",
            "```yaml",
            yaml.safe_dump(report.model, sort_keys=False).rstrip(),
            "```",
            "",
            f"Head of the file that became the task: {becomes}.",
            *_section("Settings", "| setting | value | from |", settings),
            *_section("Left out", "| why | tensors | first |", left),
            *_section("Stays new", "| why | tensors | first |", new),
            *_section("Equal to the original", "| golden | compared | largest difference |", proofs),
            "",
            "The last table compares outputs, losses and gradients for tiny random weights in fp32.",
            "Differences are relative to the largest number compared if that is above 1.",
            "",
        )
    )


def _section(title: str, columns: str, rows: list[str]) -> list[str]:
    rule = "|" + "---|" * (columns.count("|") - 1)
    return ["", f"## {title}", "", columns, rule, *rows] if rows else ["", f"## {title}", "", "Nothing."]
