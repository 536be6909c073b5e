"""Checks a data set for problems in its annotations, pictures and regions."""

from diptych.check.findings import check
from diptych.check.reading import picture_files
from diptych.check.report import CheckReport, Finding, SplitSummary

__all__ = ["CheckReport", "Finding", "SplitSummary", "check", "picture_files"]
