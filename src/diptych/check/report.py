"""Results of a check."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]
Spread = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A kind of problem.

    Args:
        what: description of the problem.
        count: number of occurrences.
        examples: the first occurrences.
        advice: what to do about it.
    """

    severity: Severity
    what: str
    count: int
    examples: tuple[str, ...]
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """Statistics of one split. A `Spread` is minimum, median and maximum, or None without values.

    Args:
        labels: number of examples by label name, and `unlabeled`.
        groups: number of examples by group, where the data set has groups.
        words: numbers of words of the texts.
        widths: widths of the readable pictures; `heights` are their heights.
        regions: numbers of regions per picture.
    """

    split: str
    examples: int
    pictures: int
    labels: dict[str, int]
    groups: dict[str, int]
    words: Spread | None
    widths: Spread | None
    heights: Spread | None
    regions: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Result of a check: findings, most severe first, and statistics of every split.

    Args:
        data: name of the data set.
    """

    root: Path
    data: str
    findings: tuple[Finding, ...]
    splits: tuple[SplitSummary, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        # The exit code depends on this: a warning must not stop a pipeline.
        return not any(finding.severity == "error" for finding in self.findings)
