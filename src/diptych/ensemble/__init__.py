"""Prediction files, and one prediction out of many."""

from diptych.ensemble.blend import agreement, blend, join, member_names
from diptych.ensemble.files import read_predictions, read_together, write_predictions
from diptych.ensemble.fit import FitReport, average_raw, fit_blend
from diptych.ensemble.members import Members, heard_by_vilio, read_members
from diptych.ensemble.search import greedy_search, simplex_search

__all__ = [
    "FitReport",
    "Members",
    "agreement",
    "average_raw",
    "blend",
    "fit_blend",
    "greedy_search",
    "heard_by_vilio",
    "join",
    "member_names",
    "read_members",
    "read_predictions",
    "read_together",
    "simplex_search",
    "write_predictions",
]
