"""What a weight file of others holds, and the model card of its bundle."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from diptych.convert.family import Family
from diptych.convert.load import Source
from diptych.convert.plan import ConversionPlan
from diptych.convert.rules import kept
from diptych.convert.settings import Settings
from diptych.documents import shorten

Node = dict[str, Any]


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
        settings: value of each setting, and where it comes from.
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
        """Plain JSON values."""
        return asdict(self)


def certificate(family: str) -> dict[str, dict[str, Any]]:
    """The goldens that a family was compared with, each with the largest difference (`make certificate`)."""
    stored = json.loads((files("diptych.convert") / "parity.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = stored.get(family, {})
    return found


def reason_for(family: Family) -> str:
    return f"{family.title}, known by {' and '.join(sorted(family.required))}"


def report_on(
    given: Source,
    source: Path | str,
    plan: ConversionPlan | None,
    *,
    reason: str,
    settings: Settings | None = None,
) -> Inspection:
    """Describe a file, and what becomes of it where a plan says so."""
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
    new = kept(found.split.backbone, found.family.table, plan.model.state_dict())
    numbered = [name for name in ("labels", "answers") if plan.task.get(name, ())[:1] == ["0"]]
    if numbered:
        new[f"names instead of numbers; say task.{numbered[0]}=@FILE"] = [f"task.{numbered[0]}"]
    if plan.head is None:
        new["the file holds no head that diptych has a task for"] = ["task.head"]
    return replace(
        report,
        family=found.family.name,
        prefix=found.split.prefix,
        model=plan.node,
        head=None if plan.head is None else (plan.head.name, str(plan.task["_target_"])),
        dropped=plan.dropped,
        new=new,
        settings={name: (one.value, one.why) for name, one in (settings or {}).items()},
    )


def card_of(report: Inspection, family: Family) -> str:
    """The model card: what it is, what was left out and stays new, and how equal the family was found."""
    proofs = [
        f"| `{name}` | {entry['compared']} | {entry['worst']:.1e} |"
        for name, entry in sorted(certificate(family.name).items())
    ]
    said = [f"| `{name}` | `{shorten(value)}` | {why} |" for name, (value, why) in report.settings.items()]
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
            *_section("Settings", "| setting | value | from |", said),
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
