"""Figures of results, drawn with matplotlib without a display."""

from diptych.errors import missing_library

try:
    import matplotlib  # noqa: F401
except Exception as error:
    raise missing_library("figures need matplotlib", "report", error) from error

from diptych.report.attention import attention_page
from diptych.report.audit import audit_page, audit_sections
from diptych.report.calibration import reliability_curves
from diptych.report.cascade import cascade_figure
from diptych.report.evidence import evidence_page, in_short, index_page
from diptych.report.figures import curves, history
from diptych.report.memes import MemeItem, meme_page
from diptych.report.policy import policy_page
from diptych.report.regions import region_page
from diptych.report.removal import removal_chart
from diptych.report.retrieval import retrieval_page
from diptych.report.runs import report_page

__all__ = [
    "MemeItem",
    "attention_page",
    "audit_page",
    "audit_sections",
    "cascade_figure",
    "curves",
    "evidence_page",
    "history",
    "in_short",
    "index_page",
    "meme_page",
    "policy_page",
    "region_page",
    "reliability_curves",
    "removal_chart",
    "report_page",
    "retrieval_page",
]
