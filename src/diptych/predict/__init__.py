"""Prediction with a bundle: single examples, many examples, or whole splits written to files."""

from diptych.predict.given import GivenRegions, Listed
from diptych.predict.predictor import Predictor, Verdict, find_device, load
from diptych.predict.splits import SplitFiles, predict_splits, regions_of_run, root_of_run

__all__ = [
    "GivenRegions",
    "Listed",
    "Predictor",
    "SplitFiles",
    "Verdict",
    "find_device",
    "load",
    "predict_splits",
    "regions_of_run",
    "root_of_run",
]
