"""Titles of the measures in tables, and whether higher values are better."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """Title of a measure, and whether higher values are better."""

    title: str
    higher: bool = True


MEASURES = {
    "accuracy": Measure("accuracy"),
    "accuracy_last_pixel": Measure("accuracy, boxes with their last pixel"),
    "auroc": Measure("AUROC"),
    "auroc_batch_mean": Measure("AUROC, mean over batches"),
    "average_precision": Measure("average precision"),
    "bleu": Measure("BLEU"),
    "brier": Measure("Brier score", higher=False),
    "calibration_error": Measure("calibration error", higher=False),
    "chrf": Measure("chrF"),
    "debiased_calibration_error": Measure("calibration error, RMS, debiased", higher=False),
    "distribution": Measure("distance of answer distributions", higher=False),
    "f1": Measure("F1"),
    "intercept": Measure("calibration intercept"),
    "largest_gap": Measure("largest gap of a bin", higher=False),
    "log_loss": Measure("log loss", higher=False),
    "loss": Measure("loss", higher=False),
    "macro_auroc": Measure("macro AUROC"),
    "macro_f1": Measure("macro F1"),
    "mean_iou": Measure("mean overlap (IoU)"),
    "mean_reciprocal_rank": Measure("mean reciprocal rank"),
    "micro_f1": Measure("micro F1"),
    "murphy_reliability": Measure("Brier: reliability", higher=False),
    "murphy_resolution": Measure("Brier: resolution"),
    "murphy_uncertainty": Measure("Brier: uncertainty", higher=False),
    "precision": Measure("precision"),
    "q_to_a": Measure("Q->A"),
    "q_to_ar": Measure("Q->AR"),
    "qa_to_r": Measure("QA->R"),
    "recall": Measure("recall"),
    "slope": Measure("calibration slope"),
}


def measure_named(name: str) -> Measure:
    """Look up a measure by name; `auroc_cat` is the AUROC of the label `cat`.

    For unknown names, higher is better unless the name contains `loss`.
    """
    if name in MEASURES:
        return MEASURES[name]
    if name.startswith("auroc_"):
        return Measure(f"AUROC of {name.removeprefix('auroc_')}")
    return Measure(name.replace("_", " "), higher="loss" not in name.lower())
