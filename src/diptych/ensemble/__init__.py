"""Prediction files, and one prediction out of many."""

from diptych.ensemble.blend import agreement, blend, join, member_names
from diptych.ensemble.files import read_predictions, write_predictions

__all__ = ["agreement", "blend", "join", "member_names", "read_predictions", "write_predictions"]
