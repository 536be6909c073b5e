"""Evaluation of boxes by their overlap with gold boxes."""

from collections.abc import Sequence
from typing import Any

from diptych.evaluate.form import Form, Options, mean_measure, one_stratum
from diptych.metrics.grounding import box_overlaps
from diptych.predictions import Predictions


class Boxes(Form):
    """Accuracy (share of boxes with an intersection over union of at least 0.5) and mean overlap."""

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether there are boxes."""
        return predictions.boxes is not None

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        # Once for all resamples: overlaps belong to examples.
        overlaps = [box_overlaps(predictions, targets) for predictions in sets]
        self.strata = one_stratum(len(targets))
        self.measures = {
            # 0.5 is the official threshold of RefCOCO and its relatives.
            "accuracy": mean_measure([(overlap >= 0.5).astype(float) for overlap in overlaps]),
            "mean_iou": mean_measure(overlaps),
        }
