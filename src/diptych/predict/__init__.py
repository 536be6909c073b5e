"""Prediction with a bundle: single examples, many examples, or whole splits written to files."""

from diptych.predict.given import GivenRegions, Listed
from diptych.predict.joined import JoinedFiles, join_splits, joined_data
from diptych.predict.predictor import Predictor, Verdict, find_device, load
from diptych.predict.splits import SplitFiles, predict_splits, regions_of_run, root_of_run

__all__ = [
    "GivenRegions",
    "JoinedFiles",
    "Listed",
    "Predictor",
    "SplitFiles",
    "Verdict",
    "find_device",
    "join_splits",
    "joined_data",
    "load",
    "predict_splits",
    "regions_of_run",
    "root_of_run",
]
