"""The audit of a data set, and of scores on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diptych.audit.blind import Baseline, blind_baselines
from diptych.audit.findings import findings_of
from diptych.audit.judged import Judged, judge, place
from diptych.audit.looks import Looks, find_runs, looks_at
from diptych.audit.noise import Ceiling, ceiling_of_copies, ceiling_of_second
from diptych.audit.sheet import Release, Sheet, read_sheet
from diptych.audit.twins import Confounded, Overlap, Twins, find_twins
from diptych.calibrate import Policy, read_groups
from diptych.check import Finding
from diptych.datasets import Data
from diptych.errors import FormatError
from diptych.evaluate.results import plain_dict
from diptych.types import Progress, RegionSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a split promises, and what holds.

    Args:
        labels: number of examples by label.
        release: where its labels are.
        seen: share of its examples with a copy, or with both a picture twin and a text twin, or only one of
            them, in the training split: the largest of these shares. nan for the training split itself.
    """

    split: str
    examples: int
    labels: Mapping[str, int]
    release: Release
    seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Result of an audit; what could not be measured is empty.

    Args:
        data: name of the data set; `train` is its training split.
        skipped: what was not measured, and why.
        findings: the gravest first.
    """

    root: Path
    data: str
    noun: str
    train: str
    contract: tuple[Contract, ...]
    overlaps: tuple[Overlap, ...]
    confounded: tuple[Confounded, ...]
    baselines: tuple[Baseline, ...]
    ceilings: tuple[Ceiling, ...]
    judged: tuple[Judged, ...]
    looks: tuple[Looks, ...]
    skipped: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON values; undefined measures are None."""
        return plain_dict(asdict(self) | {"root": str(self.root)})


def audit(
    root: Path,
    data: Data,
    *,
    splits: Sequence[str] | None = None,
    predictions: Sequence[Path] = (),
    runs: Sequence[Path] = (),
    policy: Policy | None = None,
    groups: Path | None = None,
    second: Path | None = None,
    regions: RegionSource | None = None,
    limit: int | None = None,
    samples: int = 2000,
    progress: Progress | None = None,
) -> Audit:
    """Audit a data set, and what is claimed on it.

    Args:
        splits: by default all, without cleaned views.
        predictions: prediction files of labeled splits.
        runs: run folders, or folders of runs.
        policy: thresholds for the slices of the predictions.
        groups: CSV of id and groups.
        second: CSV of `id,label` with second labels.
        regions: features of the pictures, for a baseline that reads them.
        limit: read only this number of examples of each split.
        samples: bootstrap resamples.
        progress: called with the number of pictures read and the total.

    Raises:
        ConfigError: there is no split, a run is of other data, or labels are missing that were asked for.
        FormatError: a file is damaged, or has unknown ids.
    """
    # What is small is read before all pictures, so that a wrong file is told at once.
    found = find_runs(runs)
    sheet = read_sheet(root, data, splits=splits, limit=limit)
    looks = looks_at(sheet, found)
    named = read_groups(groups, sheet.ids) if groups is not None else {}
    other = _second(second, sheet) if second is not None else {}
    placed = [(path, *place(path, sheet)) for path in predictions]
    twins = find_twins(sheet, progress)
    blind = blind_baselines(sheet, twins, regions=regions, samples=samples)
    overlaps = twins.overlaps()
    result = Audit(
        root=root,
        data=data.kind.name,
        noun=data.kind.noun,
        train=data.train,
        contract=_contracts(sheet, overlaps),
        overlaps=tuple(overlaps),
        confounded=tuple(twins.confounded()),
        baselines=blind.baselines,
        ceilings=_ceilings(twins, other),
        judged=tuple(
            judge(*one, twins, blind, policy=policy, groups=named, samples=samples) for one in placed
        ),
        looks=tuple(looks),
        skipped=tuple(_skipped(twins, blind.why_not)),
    )
    return replace(result, findings=findings_of(result))  # which so say no more than the tables


def _second(path: Path, sheet: Sheet) -> Mapping[str, str]:
    columns = read_groups(path, sheet.ids)
    if "label" not in columns:
        raise FormatError(f"{path}: there is no column `label`; it has id, {', '.join(columns)}.")
    # `read_groups` leaves out empty cells, so a file of these alone would be as good as none.
    if not columns["label"]:
        raise FormatError(f"{path}: every `label` is empty; expected second labels of some examples.")
    return columns["label"]


def _ceilings(twins: Twins, second: Mapping[str, str]) -> tuple[Ceiling, ...]:
    found = [ceiling_of_copies(twins), ceiling_of_second(twins, second) if second else None]
    return tuple(one for one in found if one is not None)


def _contracts(sheet: Sheet, overlaps: Sequence[Overlap]) -> tuple[Contract, ...]:
    return tuple(_contract(sheet, overlaps, split) for split in sheet.splits)


def _contract(sheet: Sheet, overlaps: Sequence[Overlap], split: str) -> Contract:
    labels: dict[str, int] = {}
    rows = sheet.rows(split)
    for row in rows:
        # None is withheld, and no label of its own.
        if (label := sheet.labels[row]) is not None:
            labels[label] = labels.get(label, 0) + 1
    # Overlaps name the earlier split first, and the training split is the earliest.
    shared = next((one for one in overlaps if (one.first, one.second) == (sheet.data.train, split)), None)
    # Not the sum: one example may have both twins, and would count twice. So this is a lower bound.
    most = 0 if shared is None else max(shared.ids + shared.copies, shared.pictures, shared.texts)
    # An empty split must not divide by 0.
    seen = float("nan") if split == sheet.data.train else most / max(1, len(rows))
    return Contract(split=split, examples=len(rows), labels=labels, release=sheet.release[split], seen=seen)


def _skipped(twins: Twins, why_not: str) -> list[str]:
    found = [why_not] if why_not else []
    if not any(twins.pictures.of):
        found.append("no picture file was found, so only texts were compared")
    return found
