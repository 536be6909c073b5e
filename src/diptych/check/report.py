"""What `diptych check` says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]
Spread = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of problem.

    Args:
        count: how often it occurs; `examples` are the first of them.
        advice: what to do.
    """

    severity: Severity
    what: str
    count: int
    examples: tuple[str, ...]
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """One split in numbers.

    Args:
        labels: number of examples by label name, and `unlabeled`.
        words: of the texts; `widths` and `heights` of the pictures that can be read; `regions` per picture.
            Each is the least, the median and the most, or None where there is nothing to count.
    """

    split: str
    examples: int
    pictures: int
    labels: dict[str, int]
    words: Spread | None
    widths: Spread | None
    heights: Spread | None
    regions: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All findings, worst first, and a row per split; `data` is the name of the data set."""

    root: Path
    data: str
    findings: tuple[Finding, ...]
    splits: tuple[SplitSummary, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)
