"""Reads images one by one from any source of region features, and says which ones are bad and why."""

from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from diptych.errors import ConfigError, FormatError, nearest
from diptych.features.record import Record, Widths, regions_of, widths_of
from diptych.types import Regions

PROBED = 64  # images that decide how wide features are,
AGREED = 8  # or fewer, once so many are equally wide

OnError = Literal["raise", "skip", "truncate"]
BoxPolicy = Literal["check", "clip"]


class Entry(NamedTuple):
    """One image of a source, not yet decoded.

    Args:
        key: None where only `load` can tell.
        load: reads key and record; valid until the next entry is asked for.
        done: how far the source is after it, of `total`; bytes of a text file, images of anything else.
        line: of a text file, counted from 1.
    """

    key: str | None
    load: Callable[[], tuple[str, Record]]
    done: int
    total: int
    line: int = 0


Entries = Callable[[Path], Iterator[Entry]]


@dataclass(frozen=True, slots=True)
class Fault:
    """An image that was not taken as it stands; `line` is 0 except in text files."""

    line: int
    id: str
    reason: str

    def __str__(self) -> str:
        where = [f"line {self.line}"] * bool(self.line) + [f"image {self.id!r}"] * bool(self.id)
        return f"{', '.join(where)}: {self.reason}" if where else self.reason


@dataclass(slots=True)
class ReadLog:
    """What reading has met: images left out, images cut to their boxes, and how far it is."""

    skipped: list[Fault] = field(default_factory=list)
    truncated: list[Fault] = field(default_factory=list)
    line: int = 0
    done: int = 0
    total: int = 0


def read_entries(
    path: Path,
    entries: Entries,
    *,
    on_error: OnError = "raise",
    boxes: BoxPolicy = "check",
    widths: Widths | None = None,
    done: Container[str] = (),
    log: ReadLog | None = None,
) -> Iterator[tuple[str, Regions]]:
    """Keys and regions, image by image; see `read_features`."""
    for name, got, allowed in (("on_error", on_error, OnError), ("boxes", boxes, BoxPolicy)):
        if got not in get_args(allowed):
            known = get_args(allowed)
            raise ConfigError(f"{name} is {got!r}; expected one of {', '.join(known)}.{nearest(got, known)}")
    log = ReadLog() if log is None else log
    widths = widths or find_widths(path, entries)
    seen: set[str] = set()
    for entry in entries(path):
        log.line, log.done, log.total = entry.line, entry.done, entry.total
        key = entry.key or ""
        if key and key in done:
            continue
        try:
            key, record = entry.load()
            if key in done:
                continue
            if key in seen:
                raise FormatError("the id occurs a second time; expected every id once.")
            regions, surplus = regions_of(record, widths, truncate=on_error == "truncate")
            regions = _clipped(regions) if boxes == "clip" else regions
            regions.verify()
        except FormatError as error:
            fault = Fault(entry.line, key, str(error))
            if on_error != "skip":
                raise FormatError(f"{path}: {fault} Leave such images out with on_error=skip.") from error
            log.skipped.append(fault)
            continue
        if surplus:
            log.truncated.append(Fault(entry.line, key, surplus))
        seen.add(key)
        yield key, regions


def find_widths(path: Path, entries: Entries) -> Widths:
    """What most of the first images agree on, so that one bad one does not decide.

    Raises:
        FormatError: none of them has as many features as boxes.
    """
    found: Counter[Widths] = Counter()
    first: Fault | None = None
    looked_at = 0
    with closing(entries(path)) as source:  # type: ignore[type-var]
        for entry in islice(source, PROBED):
            looked_at += 1
            try:
                if (widths := widths_of(entry.load()[1])).features:
                    found[widths] += 1
                if found[widths] == AGREED:
                    break
            except FormatError as error:
                first = first or Fault(entry.line, entry.key or "", str(error))
    if found:
        return found.most_common(1)[0][0]
    if first:
        raise FormatError(f"{path}: {first}")
    if not looked_at:
        raise FormatError(f"{path}: it holds no images.")
    raise FormatError(
        f"{path}: none of the first {looked_at} images has boxes and as many features; if images without "
        "boxes come first, say how wide features are with feature_dim."
    )


def _clipped(regions: Regions) -> Regions:
    corner = np.array(regions.size * 2, np.float32)
    return replace(regions, boxes=np.clip(regions.boxes, 0, corner))
