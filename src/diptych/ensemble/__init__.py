"""Ensembles: read prediction files, blend them, and fit blends."""

from diptych.ensemble.blend import agreement, blend, completed, member_names, stack_scores
from diptych.ensemble.files import (
    held_out_file,
    read_predictions,
    read_together,
    write_blend,
    write_predictions,
)
from diptych.ensemble.fit import FitReport, FittedBlend, fit_blend, fit_once
from diptych.ensemble.foreign import Imported, read_foreign
from diptych.ensemble.members import Members, read_members
from diptych.ensemble.search import greedy_search, simplex_search

__all__ = [
    "FitReport",
    "FittedBlend",
    "Imported",
    "Members",
    "agreement",
    "blend",
    "completed",
    "fit_blend",
    "fit_once",
    "greedy_search",
    "held_out_file",
    "member_names",
    "read_foreign",
    "read_members",
    "read_predictions",
    "read_together",
    "simplex_search",
    "stack_scores",
    "write_blend",
    "write_predictions",
]
