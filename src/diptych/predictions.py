"""Predictions: scores of examples, joined on ids, in a file that nobody has to trust."""

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.documents import check_shape, parse_json
from diptych.errors import FormatError, first_five
from diptych.files import atomic_file, require_file

MAX_BYTES = 1 << 30  # of an unpacked prediction file
ARRAYS = ("scores", "boxes")
ROWS = (*ARRAYS, "answers", "texts", "rankings")  # fields with one row per id
WHOLE = re.compile(r"0*(?P<digits>[0-9]+?)(\.0*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Scores of N examples, joined on `ids` and never by position.

    Args:
        scores: one column per name in `classes`; probabilities unless `meta` says otherwise.
        answers: the decision for each example.
        boxes: x1 y1 x2 y2 in pixels.
        texts: generated sentences.
        rankings: ids of the candidates of each example, the best first.
        form: how they are evaluated, a name in `diptych.evaluate.FORMS`; None lets the fields tell.
        meta: provenance (bundle, split, checksum of the features); travels with the file.
    """

    ids: tuple[str, ...]
    scores: Float[ndarray, "N C"] | None = None
    answers: tuple[str, ...] | None = None
    boxes: Float[ndarray, "N 4"] | None = None
    texts: tuple[str, ...] | None = None
    rankings: tuple[tuple[str, ...], ...] | None = None
    classes: tuple[str, ...] | None = None
    form: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ROWS:
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

    @property
    def finite(self) -> bool:
        """Whether every score and every corner of a box is a finite number."""
        return all(array is None or bool(np.isfinite(array).all()) for array in (self.scores, self.boxes))

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
        chosen: dict[str, Any] = {}
        for name in ("ids", *ROWS):
            value = getattr(self, name)
            if isinstance(value, ndarray):
                chosen[name] = value[np.asarray(rows, dtype=int)]
            elif value is not None:
                chosen[name] = tuple(value[row] for row in rows)
        return replace(self, **chosen)

    def spelled_like(self, ids: Collection[str]) -> "Predictions":
        """The same predictions with ids in the spelling of `ids` (see `respell`)."""
        spelled = respell(self.ids, ids)
        return self if spelled == self.ids else replace(self, ids=spelled)

    def align(self, ids: Sequence[str]) -> "Predictions":
        """The same predictions in the order of `ids`, and in their spelling (see `respell`).

        Raises:
            FormatError: an id is missing here, or one here is not asked for.
        """
        if (spelled := self.spelled_like(ids)) is not self:
            return spelled.align(ids)
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
        """Rows of all parts, in order; the parts have equal classes and the same fields."""
        joined: dict[str, Any] = {}
        for name in ("ids", *ROWS):
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], ndarray):
                joined[name] = np.concatenate(values)
            elif values[0] is not None:
                joined[name] = tuple(row for value in values for row in value)
        return replace(parts[0], **joined)

    def save(self, path: Path) -> None:
        """Write an `.npz` file whose `header` is JSON; nothing is pickled."""
        header = {"ids": self.ids, "answers": self.answers, "classes": self.classes, "meta": dict(self.meta)}
        more = {name: getattr(self, name) for name in ("texts", "rankings", "form")}
        header |= {name: value for name, value in more.items() if value is not None}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        arrays |= {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        with atomic_file(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote.

        Raises:
            FormatError: the file is not a prediction file.
        """
        path = require_file(path, "a prediction file")
        advice = "Expected what `diptych predict` writes."
        try:
            # opened here, because np.load leaves a broken file open
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                large = sum(member.file_size for member in archive.infolist())
                if large > MAX_BYTES:
                    raise ValueError(f"it unpacks to {large:,} bytes; at most {MAX_BYTES:,} are read")
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    text = str(arrays["header"])
                    rows: dict[str, Any] = {name: arrays.get(name) for name in ARRAYS}
        except Exception as error:  # archives that are damaged on purpose fail in many ways
            raise FormatError(f"{path}: not a prediction file ({error}). {advice}") from error
        where = f"{path}: not a prediction file: header"
        header: Any = check_shape(
            parse_json(text, where=where, advice=advice), _Header, where=where, advice=advice
        )
        if header.get("classes") == ["x1", "y1", "x2", "y2"]:
            raise FormatError(f"{path}: holds boxes as scores, as version 0.1 wrote them; predict again.")
        for name, array in rows.items():
            _require_rows(path, name, array)
        for name in ("answers", "texts", "rankings", "classes"):
            value = header.get(name)
            rows[name] = None if value is None else tuple(value)
        if rows["rankings"] is not None:
            rows["rankings"] = tuple(map(tuple, rows["rankings"]))
        try:
            return cls(ids=tuple(header["ids"]), form=header.get("form"), meta=header.get("meta", {}), **rows)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def _require_rows(path: Path, name: str, array: Any) -> None:
    shape: Sequence[int] = getattr(array, "shape", ())
    kind = getattr(getattr(array, "dtype", None), "kind", "?")
    fits = isinstance(array, ndarray) and len(shape) == 2 and kind == "f"
    if array is not None and not (fits and (name != "boxes" or shape[1] == 4)):
        raise FormatError(
            f"{path}: the {name} have shape {shape} and type {kind!r}; expected one row of "
            f"{'four ' if name == 'boxes' else ''}floating-point numbers per id."
        )


class _Header(TypedDict):
    ids: list[str]
    answers: NotRequired[list[str] | None]
    texts: NotRequired[list[str] | None]
    rankings: NotRequired[list[list[str]] | None]
    form: NotRequired[str | None]
    classes: NotRequired[list[str] | None]
    meta: NotRequired[dict[str, Any]]


def likeliest(target: Any) -> Any:
    """The class of a target; of a soft one, `{class: probability}`, the most probable class."""
    return max(target, key=lambda name: target[name]) if isinstance(target, Mapping) and target else target


def respell(ids: Sequence[str], like: Collection[str]) -> tuple[str, ...]:
    """`ids` in the spelling of `like`: spreadsheets turn 00005 into 5 or 5.0, and add spaces.

    An id that `like` holds stays as it is. Any other takes the spelling of the one id in `like` that is the
    same after outer spaces are removed, or the same whole number. Where two ids on one side are the same
    number, nothing is guessed.
    """
    known = set(like)
    strange = [key for key in ids if key not in known]
    if not strange:
        return tuple(ids)
    rest = known.difference(ids)
    meant = _by_number(rest)
    spelled = {key: meant[number] for number, key in _by_number(strange).items() if number in meant}
    return tuple(spelled.get(key, key) for key in ids)


def _by_number(ids: Collection[str]) -> dict[str, str]:
    """The only id of each whole number, or of each text without outer spaces."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in ids:
        bare = key.strip()
        whole = WHOLE.fullmatch(bare)
        found[whole["digits"] if whole else bare].append(key)
    return {number: keys[0] for number, keys in found.items() if len(keys) == 1}


def _some(keys: Collection[str]) -> str:
    return f"{len(keys)} ({first_five(keys)})" if keys else "0"
