"""From scores to a decision, and from a model to its card."""

from typing import Any

import numpy as np

from diptych.calibrate import Policy
from diptych.serve.limits import Limits
from diptych.serve.models import Resident, Scored
from diptych.serve.structs import Decision, ModelCard, ModelRef, PolicyCard, Thresholds


def decided(model: Resident, scored: Scored, *, audit: bool = False) -> Decision | None:
    """Decide by the policy of the model; None without one, because a score alone decides nothing.

    Args:
        audit: show the meme to people even if it is allowed.
    """
    if model.policy is None:
        return None
    policy = model.policy
    made = policy.decide(np.array([[scored.scores[label] for label in policy.labels]]))
    action, label = made.action[0], made.label[0]
    return Decision(
        action=action,
        label=label,
        probability=float(made.probability[0]),
        why=policy.why(label, scored.scores[label]),
        policy=model.policy_id,
        audit=audit and action == "allow",
    )


def calibrated(model: Resident, scored: Scored) -> dict[str, float]:
    """Calibrated probabilities of the labels of the policy; the model's own without one."""
    if model.policy is None:
        return scored.scores
    return {
        label: float(rule.map(np.array([scored.scores[label]]))[0])
        for label, rule in model.policy.labels.items()
    }


def reference(model: Resident) -> ModelRef:
    """The model, as an answer names it."""
    known = None if model.policy is None else _calibration(model.policy)
    return ModelRef(name=model.name, sha256=model.sha256, calibration=known)


def card(model: Resident, limits: Limits, *, default: bool) -> ModelCard:
    """Everything that a client should know of a model."""
    numbers: dict[str, Any] = {name: getattr(limits, name) for name in limits.__dataclass_fields__}
    return ModelCard(
        name=model.name,
        sha256=model.sha256,
        task=type(model.first.task).__name__,
        labels=list(model.classes),
        reads=list(model.reads),
        members=[name for name in model.members if name],
        # Of a study, those of its members say nothing of the blend.
        metrics={}
        if model.tree
        else {name: float(value) for name, value in model.first.bundle.metrics.items()},
        policy=None if model.policy is None else _policy_card(model, model.policy),
        limits={name: float(value) for name, value in numbers.items()},
        default=default,
    )


def _policy_card(model: Resident, policy: Policy) -> PolicyCard:
    labels = {
        name: Thresholds(
            allow=rule.allow, block=rule.block, max_miss=rule.max_miss, max_wrong_block=rule.max_wrong_block
        )
        for name, rule in policy.labels.items()
    }
    return PolicyCard(
        name=model.policy_name, id=model.policy_id, calibration=_calibration(policy), labels=labels
    )


def _calibration(policy: Policy) -> str:
    methods = "/".join(sorted({rule.map.method for rule in policy.labels.values()}))
    return f"{methods}, {policy.dev['examples']} examples of {policy.dev['split']}, {policy.made}"
