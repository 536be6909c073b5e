"""Reads images one by one from any source of region features, and reports bad ones."""

from collections import Counter
from collections.abc import Container, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from diptych.boxes import ADVICE, CONVENTIONS, doubts, other_convention
from diptych.errors import ConfigError, FormatError, nearest
from diptych.features.fields import Widths, regions_of, widths_of
from diptych.features.format import Format
from diptych.types import Regions

PROBED = 64  # images at most that are read to determine the width of features
AGREED = 8  # images of equal width after which reading stops early
CLIPPED = 0.05  # of the longer side; no known extractor exceeds the border by more

OnError = Literal["raise", "skip", "truncate"]
BoxPolicy = Literal["check", "clip", "scaled", "xywh", "yxyx"]


@dataclass(frozen=True, slots=True)
class Fault:
    """An image that was skipped or cut; `line` is 0 except in text files, `file` is one of several files."""

    line: int
    id: str
    reason: str
    file: str = ""

    def __str__(self) -> str:
        where = [self.file] * bool(self.file) + [f"line {self.line}"] * bool(self.line)
        where += [f"image {self.id!r}"] * bool(self.id)
        return f"{', '.join(where)}: {self.reason}" if where else self.reason


@dataclass(slots=True)
class ReadLog:
    """Log of reading: skipped images, images cut to their number of boxes, and the current position.

    Attributes:
        doubts: number of accepted images with suspicious boxes, by the names in `diptych.boxes.DOUBTS`.
    """

    skipped: list[Fault] = field(default_factory=list)
    truncated: list[Fault] = field(default_factory=list)
    doubts: Counter[str] = field(default_factory=Counter)
    line: int = 0
    file: str = ""
    done: int = 0
    total: int = 0


def read_entries(
    path: Path,
    form: Format,
    *,
    on_error: OnError = "raise",
    boxes: BoxPolicy = "check",
    widths: Widths | None = None,
    done: Container[str] = (),
    log: ReadLog | None = None,
) -> Iterator[tuple[str, Regions]]:
    """Read keys and regions, image by image; see `read_features`."""
    for name, got, allowed in (("on_error", on_error, OnError), ("boxes", boxes, BoxPolicy)):
        if got not in get_args(allowed):
            known = get_args(allowed)
            raise ConfigError(f"{name} is {got!r}; expected one of {', '.join(known)}.{nearest(got, known)}")
    log = ReadLog() if log is None else log
    widths = widths or find_widths(path, form)
    seen: set[str] = set()
    for entry in form.entries(path):
        log.line, log.file, log.done, log.total = entry.line, entry.file, entry.done, entry.total
        # Formats that list their keys skip finished images without decoding them.
        key = entry.key or ""
        if key and key in done:
            continue
        try:
            key, record = entry.load()
            if key in done:  # text files show the key only now
                continue
            if key in seen:
                raise FormatError("the id occurs a second time; expected every id once.")
            regions, surplus = regions_of(record, widths, form.fields, truncate=on_error == "truncate")
            regions = _meant(regions, boxes)
            regions.verify()
        except FormatError as error:
            fault = Fault(entry.line, key, str(error), entry.file)
            # `truncate` stops here, too: it only forgives what `regions_of` could cut
            if on_error != "skip":
                more = _alike(path, form, widths, str(error), boxes)
                raise FormatError(
                    f"{path}: {fault}{more} on_error=skip (or --on-error skip) leaves such images out."
                ) from error
            log.skipped.append(fault)
            continue
        if surplus:
            log.truncated.append(Fault(entry.line, key, surplus, entry.file))
        log.doubts.update(doubts(regions.boxes, regions.size))
        seen.add(key)
        yield key, regions


def find_widths(path: Path, form: Format) -> Widths:
    """The widths that most of the first images agree on, so that a single bad image does not decide.

    Raises:
        FormatError: none of them has boxes and as many features.
    """
    votes: Counter[Widths] = Counter()
    first: Fault | None = None
    looked_at = 0
    # closing: a generator that is not read to its end would keep its file open
    with closing(form.entries(path)) as source:  # type: ignore[type-var]
        for entry in islice(source, PROBED):
            looked_at += 1
            try:
                if (widths := widths_of(entry.load()[1], form.fields)).features:
                    # A majority of a few images: reading all of a large source
                    # would take as long as importing it.
                    votes[widths] += 1
                if votes[widths] == AGREED:
                    break
            except FormatError as error:
                first = first or Fault(entry.line, entry.key or "", str(error), entry.file)
    if votes:
        return votes.most_common(1)[0][0]
    if first:
        raise FormatError(f"{path}: {first}")
    if not looked_at:
        raise FormatError(f"{path}: it holds no images.")
    raise FormatError(
        f"{path}: none of the first {looked_at} images has boxes and as many features; if images without "
        "boxes come first, set the width of features with feature_dim."
    )


def _meant(regions: Regions, policy: BoxPolicy) -> Regions:
    """The regions with boxes converted to `x1 y1 x2 y2` in pixels."""
    if policy == "check":
        return regions
    corner = np.array(regions.size * 2, np.float32)
    if policy == "clip":
        fitting = np.clip(regions.boxes, 0, corner)
        # boxes far outside are rather in another convention, which clipping would hide
        off = np.abs(fitting - regions.boxes).max(initial=0) > max(1, CLIPPED * max(regions.size))
        if off and (hint := other_convention(regions.boxes, regions.size)):
            raise FormatError(f"boxes are far outside of the image.{hint}")
        return replace(regions, boxes=fitting)
    if policy == "scaled":
        return replace(regions, boxes=regions.boxes * corner)
    return replace(regions, boxes=CONVENTIONS[policy][1](regions.boxes))


def _alike(path: Path, form: Format, widths: Widths, reason: str, policy: BoxPolicy) -> str:
    """Count how many of the first images suggest the same other box convention as the refused image."""
    hint = reason[reason.find(" As ") :] if ADVICE in reason else ""
    if not hint:
        return ""
    count = looked_at = 0
    with closing(form.entries(path)) as source:  # type: ignore[type-var]
        for entry in islice(source, PROBED):
            looked_at += 1
            with suppress(FormatError):
                regions = regions_of(entry.load()[1], widths, form.fields)[0]
                try:
                    _meant(regions, policy).verify()
                except FormatError as error:
                    count += str(error).endswith(hint)
    return f" This holds for {count} of the first {looked_at} images."
