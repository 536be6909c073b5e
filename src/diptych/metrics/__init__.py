"""Measures as pure functions of predictions and gold targets."""

from diptych.metrics.answers import (
    consistency,
    consistent,
    grade_answers,
    measure_answers,
    without_punctuation,
)
from diptych.metrics.classification import (
    ReliabilityBin,
    accuracy,
    auroc,
    average_precision,
    batch_mean_auroc,
    best_threshold,
    brier,
    calibration_error,
    f1,
    labeled,
    macro_f1,
    measure_classes,
    precision_recall_points,
    reliability,
    roc_points,
)
from diptych.metrics.grounding import box_overlap, measure_boxes
from diptych.metrics.labels import label_matrix, measure_labels
from diptych.metrics.measures import MEASURES, Measure, measure_named
from diptych.metrics.ranking import best_ranks, measure_choices, measure_matches
from diptych.metrics.uncertainty import (
    DeLong,
    bootstrap_interval,
    delong_test,
    paired_interval,
    permutation_test,
)

__all__ = [
    "MEASURES",
    "DeLong",
    "Measure",
    "ReliabilityBin",
    "accuracy",
    "auroc",
    "average_precision",
    "batch_mean_auroc",
    "best_ranks",
    "best_threshold",
    "bootstrap_interval",
    "box_overlap",
    "brier",
    "calibration_error",
    "consistency",
    "consistent",
    "delong_test",
    "f1",
    "grade_answers",
    "label_matrix",
    "labeled",
    "macro_f1",
    "measure_answers",
    "measure_boxes",
    "measure_choices",
    "measure_classes",
    "measure_labels",
    "measure_matches",
    "measure_named",
    "paired_interval",
    "permutation_test",
    "precision_recall_points",
    "reliability",
    "roc_points",
    "without_punctuation",
]
