"""Pure functions over scores and gold; no state, no framework."""

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
    macro_f1,
    measure_classes,
    precision_recall_points,
    reliability,
    roc_points,
)
from diptych.metrics.uncertainty import (
    DeLong,
    bootstrap_interval,
    delong_test,
    paired_interval,
    permutation_test,
)

__all__ = [
    "DeLong",
    "ReliabilityBin",
    "accuracy",
    "auroc",
    "average_precision",
    "batch_mean_auroc",
    "best_threshold",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "delong_test",
    "f1",
    "macro_f1",
    "measure_classes",
    "paired_interval",
    "permutation_test",
    "precision_recall_points",
    "reliability",
    "roc_points",
]
