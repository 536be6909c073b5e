"""From a bundle to scores: one meme, many, or the files of whole splits."""

from diptych.predict.predictor import GivenRegions, Predictor, Verdict, find_device, load
from diptych.predict.splits import SplitFiles, predict_splits, regions_of_run, root_of_run

__all__ = [
    "GivenRegions",
    "Predictor",
    "SplitFiles",
    "Verdict",
    "find_device",
    "load",
    "predict_splits",
    "regions_of_run",
    "root_of_run",
]
