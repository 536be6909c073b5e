"""Memories of the service: judged memes that vote on others, and that people add to while it runs."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.memory import LONGEST, Case, Memory, Recall, change, content_id, recall_all
from diptych.memory.store import LIST
from diptych.serve.problems import Problem

if TYPE_CHECKING:
    from diptych.serve.models import Resident

PATIENCE = 2.0  # seconds to wait for `diptych memory` to finish a change
PAUSE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """An answered meme, from which a person can make a case.

    Args:
        id: of the case; it follows from text and picture, so that a meme is one case however often it comes.
        model: checksum of the model that gave scores and vector.
        text: at most the first `LONGEST` characters.
        picture: its key, if it came by one.
        scores: of the model alone, in the order of its classes.
    """

    id: str
    model: str
    text: str
    picture: str
    scores: tuple[float, ...]
    vector: Float[ndarray, " D"]


def lesson_of(
    model: str,
    scores: Mapping[str, float],
    vector: Float[ndarray, " D"],
    *,
    text: str,
    picture: bytes | None,
    key: str | None,
) -> Lesson:
    """Keep of an answered meme what a case is made of."""
    # A key stands for a picture that never came here.
    content = picture if picture is not None else (key or "").encode("utf-8", "surrogatepass")
    return Lesson(
        id=content_id(text, content),
        model=model,
        # Files of cases are UTF-8, in which halves of surrogate pairs have no place.
        text=text[:LONGEST].encode("utf-8", "replace").decode(),
        picture=(key or "").encode("utf-8", "replace").decode(),
        scores=tuple(scores.values()),
        vector=vector,
    )


class Version(NamedTuple):
    """A memory as it was at one time; the name says which cases there were, and what they weighed."""

    memory: Memory
    name: str


class LiveMemory:
    """The memory of one model, asked by several threads.

    Whatever changes the folder counts in the next request: a lesson here, `diptych memory` beside it, or
    another service with the same folder.

    Args:
        path: of the folder.
        model: checksum of the model.
        classes: of the model.

    Raises:
        ConfigError: it is a memory of another model.
        FormatError: the folder is no memory.
    """

    def __init__(self, path: Path, *, model: str, classes: Sequence[str]) -> None:
        self.path, self.model, self.classes = path, model, tuple(classes)
        self._lock = Lock()
        self._stamp = _stamp(path)
        self._now = self._checked(Memory.load(path))

    @property
    def parts(self) -> tuple[str, ...]:
        """The vectors of the model that are compared."""
        return self._now.memory.parts

    def current(self) -> Version:
        """The memory of this moment. A folder that is damaged meanwhile leaves the one of before in use."""
        # Between the two renames of a change there is no folder.
        with suppress(OSError):
            stamp = _stamp(self.path)
            # One thread reads; the others do not wait for it.
            if stamp != self._stamp and self._lock.acquire(blocking=False):
                try:
                    self._stamp = stamp
                    self._now = self._checked(Memory.load(self.path))
                except DiptychError as error:
                    print(f"diptych: warning: the old memory stays: {error}", file=sys.stderr)
                finally:
                    self._lock.release()
        return self._now

    def recall(self, scores: Mapping[str, float], vector: Float[ndarray, " D"]) -> tuple[Recall, str]:
        """What the cases make of the model's scores, and the name of the version that says so."""
        memory, name = self.current()
        # By name: a memory keeps the order of classes of its first model.
        row = np.array([[scores[label] for label in memory.classes]])
        return recall_all(memory, vector[None], row)[0], name

    def teach(self, lesson: Lesson, *, label: str, policy: str) -> Version:
        """Add a case; the same meme taught again replaces what was taught before.

        Raises:
            Problem: the meme was scored by another model, the label is none of its classes, or another
                process is changing the memory.
        """
        if lesson.model != self.model:
            raise Problem("conflict", "the model was exchanged since; score the meme again, and teach that.")
        if label not in self.classes:
            detail = f"the label is none of the model; expected one of {', '.join(self.classes)}."
            raise Problem("invalid-request", detail, pointer="/label")
        case = Case(
            id=lesson.id,
            label=label,
            policy=policy,
            text=lesson.text,
            picture=lesson.picture,
            scores=lesson.scores,
            added=date.today().isoformat(),
        )

        def edit(memory: Memory | None) -> Memory:
            if memory is None:
                raise FormatError(f"{self.path}: there is no memory here any more.")
            self._checked(memory)
            # Inside of the change: another process may have added the same meme meanwhile.
            if any(one.id == case.id for one in memory.cases):
                memory = memory.without([case.id])
            return memory.with_cases([case], lesson.vector[None])

        # While nobody else may change the folder: the stamp is that of this change, and of none behind it.
        def noted() -> None:
            self._stamp = _stamp(self.path)

        # One teacher at a time here; `diptych memory` and other services hold the folder's own lock.
        with self._lock:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    self._now = self._checked(change(self.path, edit, then=noted))
                    return self._now
                except FormatError as error:
                    raise Problem("conflict", f"the memory cannot be changed: {error}") from error
                except ConfigError as error:
                    if time.monotonic() > end:
                        raise Problem(
                            "conflict", f"the memory cannot be changed: {error}", retry_after=1
                        ) from error
                    time.sleep(PAUSE)

    def _checked(self, memory: Memory) -> Version:
        memory.require_model(self.model, where=self.path)
        known = getattr(self, "_now", None)
        # Vectors that wait in requests are of these parts.
        fits = known is None or (memory.parts, memory.center.shape) == (
            known.memory.parts,
            known.memory.center.shape,
        )
        if memory.classes != self.classes or not fits:
            raise ConfigError(
                f"{self.path} has the classes {', '.join(memory.classes)} and compares "
                f"{', '.join(memory.parts)}; the service began with another one. Start it again."
            )
        about = [(case.id, case.label, case.policy) for case in memory.cases]
        checksum = sha256(repr((about, memory.learned)).encode("utf-8", "replace")).hexdigest()
        return Version(memory, f"{self.path.name}@{checksum[:12]}")


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a change of the folder."""
    # A change renames a new folder into place, so the inode differs even within a tick of the clock.
    about = (path / LIST).stat()
    return about.st_ino, about.st_mtime_ns, about.st_size


def read_memories(paths: Sequence[Path], models: "Sequence[Resident]", *, all_used: bool = True) -> None:
    """Give each memory to the models that it was made with.

    Args:
        all_used: whether a memory of no model is an error.

    Raises:
        ConfigError: a memory is of no model of the service, or two are of one model.
        FormatError: a folder is no memory.
    """
    for path in paths:
        made = Memory.load(path).model
        mine = [model for model in models if model.sha256 == made]
        if not mine and all_used:
            known = ", ".join(f"{model.name} {model.sha256[:12]}" for model in models)
            raise ConfigError(
                f"{path} was made with the model {made[:12]}, which is not served; served are {known}."
            )
        for model in mine:
            if model.memory is not None:
                raise ConfigError(
                    f"{model.memory.path} and {path} are both memories of the model {model.name}; give one."
                )
            model.remember_by(LiveMemory(path, model=model.sha256, classes=model.classes))


def read_memories_again(paths: Sequence[Path], old: "Resident", new: "Resident") -> None:
    """Give a model that was loaded again the memory that was made with it.

    Raises:
        ConfigError: the old model had a memory and there is none for the new one.
        FormatError: a folder is no memory any more.
    """
    read_memories(paths, [new], all_used=False)
    if old.memory is not None and new.memory is None:
        raise ConfigError(
            f"{new.source} is now the model {new.sha256[:12]}, and no --memory was made with it; "
            f"{old.memory.path} is of {old.sha256[:12]}. Make one with the new model."
        )
