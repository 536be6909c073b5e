"""Pre-training objectives: each corrupts a batch, owns a head and computes a loss."""

from diptych.tasks.objectives.alignment import Alignment
from diptych.tasks.objectives.answers import Answers
from diptych.tasks.objectives.base import Grades, Objective, Sample
from diptych.tasks.objectives.contrast import Contrast
from diptych.tasks.objectives.interventions import Confounders, Interventions
from diptych.tasks.objectives.masked_regions import (
    MaskedRegions,
    RegionFeatures,
    RegionLabels,
    RegionMasking,
    RegionProbabilities,
)
from diptych.tasks.objectives.masked_text import MaskedText, WordMasking
from diptych.tasks.objectives.matching import Matching
from diptych.tasks.objectives.tag_contrast import TagContrast

__all__ = [
    "Alignment",
    "Answers",
    "Confounders",
    "Contrast",
    "Grades",
    "Interventions",
    "MaskedRegions",
    "MaskedText",
    "Matching",
    "Objective",
    "RegionFeatures",
    "RegionLabels",
    "RegionMasking",
    "RegionProbabilities",
    "Sample",
    "TagContrast",
    "WordMasking",
]
