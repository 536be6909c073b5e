"""From scores to a decision and its line in the audit log, and from a model to its card."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from diptych.calibrate import Policy
from diptych.memory import Recall, verdict_of
from diptych.serve.limits import Limits
from diptych.serve.memories import LiveMemory
from diptych.serve.models import Resident, Scored
from diptych.serve.structs import (
    Decision,
    MemoryCard,
    ModelCard,
    ModelRef,
    PolicyCard,
    ScoreAnswer,
    ScoreRequest,
    Thresholds,
    Votes,
)


def decided(model: Resident, scored: Scored, *, audit: bool = False) -> Decision | None:
    """Decide by the policy of the model; None without one, because a score alone decides nothing.

    Args:
        audit: show the meme to people even if it is allowed.
    """
    if model.policy is None:
        return None
    policy = model.policy
    # In the order of the policy's labels, which need not be that of the model's classes.
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


def remembered(model: Resident, scored: Scored, recall: Recall | None) -> Scored:
    """What a model says, with the votes of its memory."""
    if recall is None:
        return scored
    answer = verdict_of(model.classes, recall.scores, model.first).answer
    return replace(scored, scores=recall.scores, answer=answer)


def votes_of(recall: Recall, version: str) -> Votes:
    """What a memory adds, as an answer tells it."""
    about = recall.as_dict()
    return Votes(version=version, before=about["before"], cases=about["cases"])


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
    # In every answer: whoever keeps answers can tell later by which calibration they were made.
    known = None if model.policy is None else _calibration(model.policy)
    return ModelRef(name=model.name, sha256=model.sha256, calibration=known)


def line_of(
    request: ScoreRequest, answer: ScoreAnswer, *, caller: str, picture: str, ocr: str | None
) -> dict[str, Any]:
    """The line of a decision in the audit log; without texts and pictures.

    Args:
        caller: name of the key.
        picture: checksum of the encoded picture; empty if there is none.
        ocr: what reads the words of pictures.
    """
    decision, votes = answer.decision, answer.memory
    return {
        "kind": "decision",
        "request_id": answer.request_id,
        "key": caller,
        "picture": picture or None,
        "image_key": request.image.key if request.image is not None else None,
        # A lone surrogate of JSON is no UTF-8, but must have a checksum, too.
        "text": sha256(answer.read.text.encode("utf-8", "surrogatepass")).hexdigest(),
        "text_source": answer.read.text_source,
        "ocr": ocr if answer.read.text_source == "ocr" else None,
        "model": answer.model.name,
        "model_sha256": answer.model.sha256,
        "calibration": answer.model.calibration,
        "memory": None if votes is None else votes.version,
        # Those that changed the score; the others were only near.
        "cases": [] if votes is None else [one["id"] for one in votes.cases if one["contribution"]],
        "raw": answer.raw,
        "probability": None if decision is None else decision.probability,
        "action": None if decision is None else decision.action,
        "label": None if decision is None else decision.label,
        "why": None if decision is None else decision.why,
        "policy": None if decision is None else decision.policy,
        "audit": decision is not None and decision.audit,
        "tags": request.tags,
        "milliseconds": answer.timing_ms.total,
    }


def card(model: Resident, limits: Limits, *, default: bool, teachers: str) -> ModelCard:
    """Everything that a client should know of a model.

    Args:
        teachers: the role that may add to its memory.
    """
    # All of them, so that a client can size its batches without trying.
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
        memory=None if model.memory is None else _memory_card(model.memory, teachers),
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


def _memory_card(live: LiveMemory, teachers: str) -> MemoryCard:
    memory, name = live.current()
    return MemoryCard(
        version=name,
        cases=len(memory.cases),
        policies=list(memory.policies),
        fitted=memory.learned is not None,
        teachers=teachers,
    )


def _calibration(policy: Policy) -> str:
    methods = "/".join(sorted({rule.map.method for rule in policy.labels.values()}))
    return f"{methods}, {policy.dev['examples']} examples of {policy.dev['split']}, {policy.made}"
