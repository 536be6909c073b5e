"""What a request brings, and what is kept of it until it is answered."""

import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from diptych.explain.document import Explanation
from diptych.serve.models import Scored
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
    """Seconds of each stage of an answer."""

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
