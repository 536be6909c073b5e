"""What a request brings, and what is kept of it until it is answered."""

import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from diptych.explain.document import Explanation
from diptych.serve.limits import Limits
from diptych.serve.models import Resident, Scored
from diptych.serve.pictures import POINTER
from diptych.serve.problems import Problem
from diptych.serve.structs import Read, ScoreRequest, Timing


@runtime_checkable
class Words(Protocol):
    """Reads the words of a picture."""

    def identity(self) -> str:
        """Name and version of the reader, for the audit log."""
        ...

    def text(self, image: Image) -> str:
        """The words in the order of reading; empty if there are none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a meme is made of before anything was read.

    Args:
        data: the encoded picture, if there is one.
        size: bytes that it occupies in the queue.
    """

    request: ScoreRequest
    data: bytes | None
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a repeated meme is answered from."""

    scored: Scored
    read: Read
    evidence: Explanation | None = None


@dataclass(slots=True, kw_only=True)
class Stages:
    """Seconds of each stage of an answer, and whether it is of a job."""

    low: bool = False
    queue: float = 0.0
    prepare: float = 0.0
    ocr: float = 0.0
    model: float = 0.0
    explain: float = 0.0
    hit: bool = False
    start: float = field(default_factory=time.monotonic)

    def answer(self) -> Timing:
        names = ("queue", "prepare", "ocr", "model", "explain")
        parts = {name: round(1000 * getattr(self, name), 3) for name in names}
        total = round(1000 * (time.monotonic() - self.start), 3)
        return Timing(**parts, total=total, cache="hit" if self.hit else "miss")


def require_consistent(given: Given, model: Resident, limits: Limits) -> None:
    """Check what the structure of a request cannot say.

    Raises:
        Problem: `invalid-request`, with the place.
    """
    request, data = given.request, given.data
    if request.text is not None and len(request.text) > limits.text:
        found = f"the text has {len(request.text)} characters; expected at most {limits.text}."
        raise Problem("invalid-request", found, pointer="/text")
    if request.policy is not None and request.policy != model.policy_name:
        known = f"has the policy {model.policy_name!r}" if model.policy else "has no policy"
        raise Problem("invalid-request", f"the model {model.name} {known}.", pointer="/policy")
    image = request.image
    ways = 0 if image is None else sum(one is not None for one in (image.data, image.url, image.key))
    if image is not None and ways + (data is not None and image.data is None) != 1:
        found = f"the image is given in {ways} ways; expected one of bytes, url and key."
        raise Problem("invalid-request", found, pointer=POINTER)
