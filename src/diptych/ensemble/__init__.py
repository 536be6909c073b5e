"""Prediction files, and one prediction out of many."""

from diptych.ensemble.blend import agreement, blend, join, member_names
from diptych.ensemble.files import read_predictions, read_together, write_predictions
from diptych.ensemble.fit import FitReport, fit_blend
from diptych.ensemble.members import Members, read_members
from diptych.ensemble.search import greedy_search, simplex_search

__all__ = [
    "FitReport",
    "Members",
    "agreement",
    "blend",
    "fit_blend",
    "greedy_search",
    "join",
    "member_names",
    "read_members",
    "read_predictions",
    "read_together",
    "simplex_search",
    "write_predictions",
]
