"""Words in pictures: what a reader of text gives back, in which order people read it, and what is caption.

Whoever finds words (an engine in this machine, a service, a vision model) is a `TextReader`; all that uses
words takes one. `diptych.detect.rapid` has the one that comes with the extra `ocr`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, Protocol, runtime_checkable

from PIL import Image

from diptych.errors import DiptychError

Chosen = Literal["captions", "all"]
Box = tuple[float, float, float, float]
SCENE = (
    0.5  # lines lower than this share of the tallest are no captions: signs, watermarks, numbers of photos
)
# Round or straight shapes are taken for one or two letters: such lines are no measure for the others, and no
# captions if they are higher than this multiple of them.
SHORT, SHAPE = 2, 1.5
SAME_ROW = 0.6  # shared part of two heights from which two boxes are on one row
# In heights of a line. A space between words is about 0.3, a gutter between columns at least one.
GUTTER, BAND = 1.5, 0.7
TRIM = 0.2  # of the height: detectors enlarge their boxes, so those of two close lines overlap


class ReaderDied(DiptychError):
    """The engine that reads words has ended or hangs; its next picture starts it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text in a picture.

    Args:
        box: x1 y1 x2 y2 in pixels of the upright picture.
        score: confidence of the reader, in [0, 1].
        height: of the letters, in pixels. The box of a slanted line is higher.
        scene: whether the line seems to belong to the photograph, and not to be written over it.
        turned: whether the line is upside down.
    """

    text: str
    box: Box
    score: float
    height: float
    scene: bool = False
    turned: bool = False


@runtime_checkable
class TextReader(Protocol):
    """Finds words in pictures."""

    def identity(self) -> str:
        """Return name, version and settings. Equal identities give equal lines, so it is a key of caches."""
        ...

    def read(self, pictures: Sequence[Image.Image]) -> list[list[Line]]:
        """Return the lines of each upright RGB picture, in any order and none marked as scene.

        Raises:
            ReaderDied: the reader cannot go on with these pictures; it can be asked for others.
        """
        ...


def arranged(lines: Iterable[Line]) -> list[Line]:
    """Return lines in the order of reading, with those that are no captions marked.

    The picture is cut at wide gaps, first into bands from top to bottom, then into columns from left to
    right, and so on inside of each part (the XY cut of Nagy and Seth, 1984). Pieces of one row are read from
    left to right.
    """
    lines = [line for line in lines if line.text.strip()]
    long = [line.height for line in lines if len(line.text.strip()) > SHORT]
    tallest = max(long or [line.height for line in lines], default=0.0)
    marked = [replace(line, scene=_is_scene(line, tallest)) for line in lines]
    # A picture that is upside down begins at its lower right corner.
    turned = [_mirrored(line) for line in marked if line.turned]
    return [*_ordered([line for line in marked if not line.turned]), *map(_mirrored, _ordered(turned))]


def _is_scene(line: Line, tallest: float) -> bool:
    """Whether a line is much lower than the tallest words, or a shape that is higher."""
    shape = len(line.text.strip()) <= SHORT and line.height > SHAPE * tallest
    return shape or line.height < SCENE * tallest


def words(lines: Iterable[Line], chosen: Chosen = "captions") -> str:
    """Join the captions, or all lines, with spaces."""
    kept = (line.text for line in lines if chosen == "all" or not line.scene)
    return " ".join(" ".join(kept).split())


def _mirrored(line: Line) -> Line:
    x1, y1, x2, y2 = line.box
    return replace(line, box=(-x2, -y2, -x1, -y1))


def _ordered(lines: list[Line]) -> list[Line]:
    if len(lines) < 2:
        return lines
    height = median(line.height for line in lines)
    for axis, gap in ((1, BAND), (0, GUTTER)):
        parts = _cut(lines, axis, gap * height)
        if len(parts) > 1:
            return [line for part in parts for line in _ordered(part)]
    rows = _rows(lines)
    # A headline over two columns, or a line below them, closes the gutter: without it, there are columns.
    for outer, inner in ((rows[:1], rows[1:]), (rows[-1:], rows[:-1])):
        rest = [line for row in inner for line in row]
        if len(outer[0]) == 1 and len(inner) > 1 and len(_cut(rest, 0, GUTTER * height)) > 1:
            return outer[0] + _ordered(rest) if outer == rows[:1] else _ordered(rest) + outer[0]
    return [line for row in rows for line in row]


def _cut(lines: Sequence[Line], axis: int, gap: float) -> list[list[Line]]:
    """Cut lines where no box is for at least `gap` pixels, along x (axis 0) or y (1)."""
    parts: list[list[Line]] = []
    end = 0.0
    for line in sorted(lines, key=lambda line: line.box[axis]):
        if not parts or line.box[axis] - end >= gap:
            parts.append([])
        parts[-1].append(line)
        end = max(end, line.box[axis + 2]) if len(parts[-1]) > 1 else line.box[axis + 2]
    return parts


def _rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Group lines whose heights overlap, from top to bottom; each group from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        if rows and _overlap(rows[-1][-1], line) > SAME_ROW:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.box[0]) for row in rows]


def _overlap(one: Line, other: Line) -> float:
    """Shared part of the lower of two heights."""
    (_, top, _, bottom), (_, above, _, below) = one.box, other.box
    least = min(bottom - top, below - above)
    return (min(bottom, below) - max(top, above)) / least if least > 0 else 0.0
