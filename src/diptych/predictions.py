"""Predictions: scores of examples, joined on ids, in a file that nobody has to trust."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NotRequired
from zipfile import ZipFile

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.documents import check_shape, parse_json
from diptych.errors import FormatError
from diptych.files import atomic_file, require_file

WHOLE = re.compile(r"\+?0*(\d+)(\.0*)?", re.ASCII)
BOMB, BOMB_RATIO = 256 << 20, 200  # bytes of a file unpacked, and times its size: scores shrink to a third


class _Header(TypedDict):
    """What the `header` of a prediction file says."""

    ids: list[str]
    answers: NotRequired[list[str] | None]
    classes: NotRequired[list[str] | None]
    meta: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Scores of N examples, joined on `ids` and never by position.

    Args:
        scores: one column per name in `classes`; probabilities unless `meta` says otherwise.
        answers: the decision for each example.
        meta: provenance (bundle, split, checksum of the features); travels with the file.
    """

    ids: tuple[str, ...]
    scores: Float[ndarray, "N C"] | None = None
    answers: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("scores", "answers"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.ids):
                raise FormatError(
                    f"predictions have {len(self.ids)} ids but {len(value)} {name}; expected one of each."
                )
        if self.scores is not None and self.classes is not None and self.scores.shape[1] != len(self.classes):
            raise FormatError(
                f"predictions have {self.scores.shape[1]} score columns for the classes {self.classes}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> Float[ndarray, " N"]:
        """The scores of one class.

        Raises:
            FormatError: there are no scores, or no class of this name.
        """
        if self.scores is None or self.classes is None or name not in self.classes:
            raise FormatError(
                f"predictions hold no scores of class {name!r}; their classes are {self.classes}."
            )
        return self.scores[:, self.classes.index(name)]

    def select(self, rows: Sequence[int] | ndarray) -> "Predictions":
        """The given rows, in the given order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            scores=None if self.scores is None else self.scores[np.asarray(rows, dtype=int)],
            answers=None if self.answers is None else tuple(self.answers[row] for row in rows),
        )

    def spelled_as(self, ids: Collection[str]) -> "Predictions":
        """The same predictions with ids as they are spelled elsewhere; `respelled` says which are one."""
        names = respelled(self.ids, ids)
        return replace(self, ids=tuple(names.get(key, key) for key in self.ids)) if names else self

    def align(self, ids: Sequence[str]) -> "Predictions":
        """The same predictions in the order and the spelling of `ids`.

        Raises:
            FormatError: an id is missing here, or one here is not asked for.
        """
        self = self.spelled_as(ids)
        position = {key: row for row, key in enumerate(self.ids)}
        if len(position) < len(self.ids):
            repeated = [key for row, key in enumerate(self.ids) if position[key] != row]
            raise FormatError(f"predictions repeat ids: {_some(repeated)}; expected every example once.")
        missing = [key for key in ids if key not in position]
        extra = position.keys() - set(ids)
        if missing or extra:
            raise FormatError(
                f"predictions do not cover the same examples: {_some(missing)} missing, "
                f"{_some(sorted(extra))} unexpected. Predict the same split with every model."
            )
        return self.select([position[key] for key in ids])

    def unique(self) -> "Predictions":
        """The first row of every id (padded distributed samplers repeat some)."""
        first = {key: row for row, key in reversed(list(enumerate(self.ids)))}
        return self if len(first) == len(self.ids) else self.select(sorted(first.values()))

    @classmethod
    def concat(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Rows of all parts, in order; the parts have equal classes."""
        head = parts[0]
        return replace(
            head,
            ids=tuple(key for part in parts for key in part.ids),
            scores=None if head.scores is None else np.concatenate([part.scores for part in parts]),
            answers=None if head.answers is None else tuple(a for part in parts for a in part.answers or ()),
        )

    def save(self, path: Path) -> None:
        """Write an `.npz` file whose `header` is JSON; nothing is pickled."""
        header = {"ids": self.ids, "answers": self.answers, "classes": self.classes, "meta": dict(self.meta)}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        if self.scores is not None:
            arrays["scores"] = self.scores
        with atomic_file(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote.

        Raises:
            FormatError: the file is not a prediction file.
        """
        advice = "Expected what `diptych predict` writes."
        require_file(path, "a prediction file")
        try:
            # opened here, because np.load leaves a broken file open
            with open(path, "rb") as file:
                _require_no_bomb(file, path)
                with np.load(file, allow_pickle=False) as arrays:
                    text = str(arrays["header"])
                    scores = arrays.get("scores")
        except FormatError:
            raise
        except Exception as error:  # zipfile and NumPy raise whatever they stumble over
            raise FormatError(f"{path}: not a prediction file ({error}). {advice}") from error
        header = check_shape(parse_json(text, where=path, advice=advice), _Header, where=path, advice=advice)
        if scores is not None and (scores.ndim != 2 or scores.dtype.kind != "f"):
            raise FormatError(
                f"{path}: the scores have shape {scores.shape} and type {scores.dtype}; expected one row of "
                "floating-point numbers per id."
            )
        answers, classes = header.get("answers"), header.get("classes")
        try:
            return cls(
                ids=tuple(header["ids"]),
                scores=scores,
                answers=None if answers is None else tuple(answers),
                classes=None if classes is None else tuple(classes),
                meta=header.get("meta", {}),
            )
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def join_key(key: str) -> str:
    """What two spellings of one id share: no outer spaces; of whole numbers the value (`05`, `5.0`)."""
    key = key.strip()
    found = WHOLE.fullmatch(key)
    return found[1] if found else key


def respelled(ours: Iterable[str], theirs: Collection[str]) -> dict[str, str]:
    """Spellings of ids of `ours` that stand in `theirs` in another spelling only.

    An id that stands there as it is keeps its name, and so do ids whose other spelling is not unique.
    """
    known = set(theirs)
    others = [key for key in ours if key not in known]
    if not others:
        return {}
    keys = Counter(map(join_key, known))
    names = {key: name for name in known if keys[key := join_key(name)] == 1}
    here = Counter(map(join_key, ours))
    return {key: names[same] for key in others if here[same := join_key(key)] == 1 and same in names}


def _require_no_bomb(file: IO[bytes], path: Path) -> None:
    with ZipFile(file) as members:
        size = sum(member.file_size for member in members.infolist())
    if size > BOMB and size > BOMB_RATIO * path.stat().st_size:
        raise FormatError(f"{path}: {size:,} bytes in a file of {path.stat().st_size:,}; expected scores.")
    file.seek(0)


def _some(keys: Collection[str]) -> str:
    shown = ", ".join(list(keys)[:5])
    return f"{len(keys)} ({shown}{', ...' if len(keys) > 5 else ''})" if keys else "0"
