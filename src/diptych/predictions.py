"""Predictions: scores and answers of examples, joined on ids, and a file format that is safe to load."""

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

MAX_BYTES = 1 << 30  # unpacked size of a prediction file
ARRAYS = ("scores", "boxes")
ROWS = (*ARRAYS, "answers", "texts", "rankings")  # fields with one row per id
WHOLE = re.compile(r"0*(?P<digits>[0-9]+?)(\.0*)?")  # spellings of a whole number


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Scores of N examples, joined on `ids` and never by position.

    Args:
        scores: one column per name in `classes`; probabilities unless `meta` says otherwise.
        answers: the decision for each example.
        boxes: x1 y1 x2 y2 in pixels.
        texts: generated sentences.
        rankings: ids of the candidates of each example, best first.
        form: form of decision for evaluation, a name in `diptych.evaluate.FORMS`; None infers it.
        meta: provenance (bundle, split, checksum of the features), which is saved, too.
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
                    f"predictions have {len(self.ids)} ids but {len(value)} {name}; expected equal numbers."
                )
        if self.scores is not None and self.classes is not None and self.scores.shape[1] != len(self.classes):
            raise FormatError(
                f"predictions have {self.scores.shape[1]} score columns for the classes {self.classes}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def finite(self) -> bool:
        """Whether all scores and boxes are finite numbers."""
        return all(array is None or bool(np.isfinite(array).all()) for array in (self.scores, self.boxes))

    @property
    def model(self) -> str | None:
        """Identity of the model or blend that scored, a checksum in `meta`; None if it is unknown."""
        made_of = self.meta.get("made_of")
        # `diptych predict` records the checksum of the bundle, `diptych ensemble` one of all members.
        known = made_of.get("bundle") if isinstance(made_of, Mapping) else self.meta.get("model")
        return known if isinstance(known, str) else None

    def column(self, name: str) -> Float[ndarray, " N"]:
        """Return the scores of one class.

        Raises:
            FormatError: there are no scores, or no class with this name.
        """
        if self.scores is None or self.classes is None or name not in self.classes:
            raise FormatError(
                f"predictions have no scores of class {name!r}; their classes are {self.classes}."
            )
        return self.scores[:, self.classes.index(name)]

    def select(self, rows: Sequence[int] | ndarray) -> "Predictions":
        """Return the given rows, in the given order."""
        chosen: dict[str, Any] = {}
        for name in ("ids", *ROWS):
            value = getattr(self, name)
            if isinstance(value, ndarray):
                # `int`, because an empty list would become an array of floats.
                chosen[name] = value[np.asarray(rows, dtype=int)]
            elif value is not None:
                chosen[name] = tuple(value[row] for row in rows)
        return replace(self, **chosen)

    def spelled_like(self, ids: Collection[str]) -> "Predictions":
        """Return the predictions with the spelling of `ids`; see `respell`."""
        spelled = respell(self.ids, ids)
        return self if spelled == self.ids else replace(self, ids=spelled)

    def align(self, ids: Sequence[str]) -> "Predictions":
        """Return the predictions in the order of `ids`, and with their spelling; see `respell`.

        Raises:
            FormatError: the predictions lack an id, or have an id that is not in `ids`.
        """
        if (spelled := self.spelled_like(ids)) is not self:
            return spelled.align(ids)
        position = {key: row for row, key in enumerate(self.ids)}
        if len(position) < len(self.ids):
            repeated = [key for row, key in enumerate(self.ids) if position[key] != row]
            raise FormatError(f"predictions repeat ids: {_some(repeated)}; expected every example once.")
        missing = [key for key in ids if key not in position]
        extra = position.keys() - set(ids)
        # Both are told: a wrong split usually has some of each.
        if missing or extra:
            raise FormatError(
                f"predictions do not cover the same examples: {_some(missing)} missing, "
                f"{_some(sorted(extra))} unexpected. Predict the same split with every model."
            )
        return self.select([position[key] for key in ids])

    def unique(self) -> "Predictions":
        """Keep the first row of every id; padded distributed samplers repeat some."""
        # Backwards, so that the first row of an id is the one that stays.
        first = {key: row for row, key in reversed(list(enumerate(self.ids)))}
        return self if len(first) == len(self.ids) else self.select(sorted(first.values()))

    @classmethod
    def concat(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Concatenate parts with equal classes and the same fields."""
        joined: dict[str, Any] = {}
        for name in ("ids", *ROWS):
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], ndarray):
                joined[name] = np.concatenate(values)
            elif values[0] is not None:
                joined[name] = tuple(row for value in values for row in value)
        return replace(parts[0], **joined)

    def save(self, path: Path) -> None:
        """Write an `.npz` file without pickles; its `header` is JSON."""
        header = {"ids": self.ids, "answers": self.answers, "classes": self.classes, "meta": dict(self.meta)}
        more = {name: getattr(self, name) for name in ("texts", "rankings", "form")}
        header |= {name: value for name, value in more.items() if value is not None}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        arrays |= {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        with atomic_file(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read a file of `save`.

        Raises:
            FormatError: the file is not a prediction file.
        """
        path = require_file(path, "a prediction file")
        advice = "Expected a file of `diptych predict`."
        try:
            # np.load(path) would leave a damaged file open.
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                large = sum(member.file_size for member in archive.infolist())
                if large > MAX_BYTES:
                    raise ValueError(f"it unpacks to {large:,} bytes; at most {MAX_BYTES:,} are read")
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:  # the default, but safety depends on it
                    text = str(arrays["header"])
                    rows: dict[str, Any] = {name: arrays.get(name) for name in ARRAYS}
        except Exception as error:  # a forged archive may raise anything
            raise FormatError(f"{path}: not a prediction file ({error}). {advice}") from error
        where = f"{path}: not a prediction file: header"
        header: Any = check_shape(
            parse_json(text, where=where, advice=advice), _Header, where=where, advice=advice
        )
        if header.get("classes") == ["x1", "y1", "x2", "y2"]:
            raise FormatError(f"{path}: has boxes as scores, as written by version 0.1; predict again.")
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
    """Return the class of a target; for a soft target, `{class: probability}`, the most probable class."""
    return max(target, key=lambda name: target[name]) if isinstance(target, Mapping) and target else target


def respell(ids: Sequence[str], like: Collection[str]) -> tuple[str, ...]:
    """Respell `ids` as in `like`, because spreadsheets turn 00005 into 5 or 5.0, and add spaces.

    An id that is in `like` is kept. Any other gets the spelling of the only id in `like` that is equal after
    stripping spaces, or is the same whole number. If several ids on one side are the same number, they are
    kept, because the choice would be a guess.
    """
    known = set(like)
    strange = [key for key in ids if key not in known]
    if not strange:
        return tuple(ids)
    # Ids that one row has already are not given to another row.
    rest = known.difference(ids)
    meant = _by_number(rest)
    spelled = {key: meant[number] for number, key in _by_number(strange).items() if number in meant}
    return tuple(spelled.get(key, key) for key in ids)


def _by_number(ids: Collection[str]) -> dict[str, str]:
    """Map each whole number, or each stripped text, to its id if there is only one."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key in ids:
        bare = key.strip()
        whole = WHOLE.fullmatch(bare)
        groups[whole["digits"] if whole else bare].append(key)
    return {number: keys[0] for number, keys in groups.items() if len(keys) == 1}


def _some(keys: Collection[str]) -> str:
    return f"{len(keys)} ({first_five(keys)})" if keys else "0"
