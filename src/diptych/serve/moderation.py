"""OpenAI's moderation shape over the same models: here a picture and its text are judged together."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Literal

from diptych.serve.limits import Limits
from diptych.serve.models import Resident
from diptych.serve.problems import Problem
from diptych.serve.structs import (
    ModerationAnswer,
    ModerationRequest,
    ModerationResult,
    Part,
    Picture,
    ScoreAnswer,
    ScoreRequest,
)

DATA = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)


def memes_of(asked: ModerationRequest, model: str, *, limits: Limits) -> list[ScoreRequest]:
    """The memes of a request: one per text, or the parts together as one.

    Raises:
        Problem: texts and parts are mixed, there are too many, or a picture is no base64.
    """
    if isinstance(asked.input, str):
        return [ScoreRequest(text=asked.input, model=model)]
    if not 1 <= len(asked.input) <= limits.items:
        detail = f"there are {len(asked.input)} inputs; expected 1 to {limits.items}."
        raise Problem("invalid-request", detail, pointer="/input")
    # OpenAI's list of texts is several memes, its list of parts is one.
    texts = [one for one in asked.input if isinstance(one, str)]
    parts = [one for one in asked.input if isinstance(one, Part)]
    if texts and parts:
        raise Problem("invalid-request", "texts and parts are mixed; send either.", pointer="/input")
    if texts:
        return [ScoreRequest(text=text, model=model) for text in texts]
    pictures = [one.image_url.url for one in parts if one.image_url is not None]
    words = [one.text for one in parts if one.text is not None]
    if len(pictures) > 1:
        raise Problem(
            "invalid-request", f"there are {len(pictures)} pictures; expected one.", pointer="/input"
        )
    image = _picture(pictures[0]) if pictures else None
    return [ScoreRequest(text=" ".join(words) if words else None, image=image, model=model)]


def _picture(url: str) -> Picture:
    # Any other address is checked where addresses are fetched, and refused there by default.
    found = DATA.match(url)
    if found is None:
        return Picture(url=url)
    try:
        return Picture(data=b64decode(url[found.end() :], validate=True))
    except (Base64Error, ValueError) as error:
        raise Problem("invalid-request", "the picture is no base64.", pointer="/input") from error


def answered(request_id: str, model: Resident, found: Sequence[ScoreAnswer]) -> ModerationAnswer:
    """OpenAI's answer: flagged is whatever the policy does not allow."""
    return ModerationAnswer(
        id=f"modr-{request_id}", model=model.name, results=[_result(model, one) for one in found]
    )


def _result(model: Resident, answer: ScoreAnswer) -> ModerationResult:
    assert model.policy is not None and answer.decision is not None, "checked by the caller"
    kinds: list[Literal["text", "image"]] = []
    # What was read, and not what was sent: a model of texts ignores the picture.
    if answer.read.text:
        kinds.append("text")
    if answer.read.width is not None and {"pixels", "regions"} & set(model.reads):
        kinds.append("image")
    # A label is its own category; it is true where its own band does not allow it.
    flags = {
        label: not (rule.allow is not None and answer.raw[label] < rule.allow)
        for label, rule in model.policy.labels.items()
    }
    return ModerationResult(
        flagged=answer.decision.action != "allow",
        categories=flags,
        category_scores=answer.scores,
        category_applied_input_types=dict.fromkeys(flags, kinds),
    )
