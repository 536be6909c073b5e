"""Policies on the command line: scores to fit on, whose they are, and the decision on one example."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.calibrate import Policy
    from diptych.calibrate.policy import DevNode
    from diptych.datasets import Split
    from diptych.predictions import Predictions


def decided(policy: "Policy", scores: Mapping[str, float]) -> dict[str, Any]:
    """Action, calibrated probability, the label that asks for it, why, and all of it as a line.

    Args:
        scores: of the model, by class.

    Raises:
        ConfigError: the model does not score a label of the policy.
    """
    import numpy as np

    # A label without a score must not pass for one that was allowed.
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


def scored_file(path: Path, dataset: "Split", kind: Any = None) -> tuple["Predictions", str | None, Any]:
    """Predictions to fit decisions on, the identity of their model, and which scores they are."""
    from diptych.ensemble import held_out_file, read_predictions

    predictions = read_predictions(path, dataset=dataset, kind=kind)
    model = model_of_file(path, predictions)
    if not held_out_file(path).is_file():
        return predictions, model, "as predicted"
    # The blend itself was fitted on these labels, so its own scores of them are too good.
    predictions = read_predictions(held_out_file(path))
    return predictions, model or predictions.model, "out of fold"


def about_dev(dataset: "Split", count: int, scores: Any) -> "DevNode":
    """What a policy or a cascade records about the labeled examples."""
    from diptych.data.inputs import checksums, digest

    checksum = digest([dataset.split, *checksums(dataset.files).values()])
    return {"split": dataset.split, "checksum": checksum, "examples": count, "scores": scores}
