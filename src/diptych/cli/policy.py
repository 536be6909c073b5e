"""Policies on the command line: which model a file of scores is of, and the decision on one example."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.calibrate import Policy
    from diptych.predictions import Predictions


def decided(policy: "Policy", scores: Mapping[str, float]) -> dict[str, Any]:
    """Action, calibrated probability, the label that asks for it, why, and all of it as a line.

    Args:
        scores: of the model, by class.

    Raises:
        ConfigError: the model does not score a label of the policy.
    """
    import numpy as np

    if missing := sorted(policy.labels.keys() - scores.keys()):
        raise ConfigError(f"the policy decides on {missing[0]!r}, but the model scores {', '.join(scores)}.")
    decisions = policy.decide(np.array([[scores[label] for label in policy.labels]]))
    action, label, probability = decisions.action[0], decisions.label[0], float(decisions.probability[0])
    why = policy.why(label, scores[label])
    line = f"{action}   (calibrated probability {probability:.4f}: {why})"
    return {"action": action, "label": label, "probability": probability, "why": why, "line": line}


def model_of_file(path: Path, predictions: "Predictions") -> str | None:
    """Identity of the model of a prediction file; None if neither it nor what lies beside it says so."""
    from diptych.ensemble import read_predictions
    from diptych.study import is_study, model_of

    if is_study(path.parent):
        return model_of(path.parent)
    beside = path.with_suffix(".npz")
    # The official file has no room for provenance.
    if predictions.model is None and path.suffix != ".npz" and beside.is_file():
        return read_predictions(beside).model
    return predictions.model
