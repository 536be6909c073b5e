"""Reads the words of many pictures into one JSON-lines file; an interruption loses at most one picture.

A line has `id`, `img`, `text`, the lines of the picture with their boxes, who read them, and the SHA-256 of
the picture: equal pictures are read once, and a later run takes over what has not changed. With `id`, `img`
and `text`, the file is a table that diptych opens as a data set.

memes/
|-- ocr.jsonl.partial    during a run: the lines that are done
`-- ocr.jsonl            all lines, in the order of the pictures
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from os.path import relpath
from pathlib import Path
from typing import IO, Literal

from typing_extensions import TypedDict

from diptych.detect.listing import PictureFile
from diptych.detect.ocr import Chosen, Line, ReaderDied, TextReader, arranged, words
from diptych.documents import check_shape, closed, parse_json
from diptych.errors import OVERWRITE, RESUME, ConfigError, DiptychError, FormatError
from diptych.features import Fault
from diptych.files import atomic_file, claimed, require_file
from diptych.images import open_image
from diptych.types import Progress

DEATHS = 3  # of the reader, one after the other: then it is no matter of the pictures
HEAD = b'{"reader": "'  # the first bytes of a file of words
LONGEST = 16 << 20  # bytes of a line
ADVICE = f"Set {OVERWRITE} to read all pictures again."


@closed
class LineNode(TypedDict):
    """A line of text, see `Line`."""

    text: str
    box: list[float]
    score: float
    height: float
    scene: bool
    turned: bool


# The words of a picture; `img` is relative to the folder of the file. In this form, because `img` is the name
# that files of memes have for it, and none that we would give.
Record = TypedDict(  # noqa: UP013
    "Record",
    {"reader": str, "sha256": str, "id": str, "img": str, "text": str, "lines": list[LineNode]},
)
closed(Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsReport:
    """Result of `read_words`.

    Args:
        texts: by key of the picture.
        computed: number of pictures that were read in this run; the others were known.
        empty: number of pictures without words.
        bad: pictures that could not be read.
        seconds: wall time of this run.
    """

    path: Path
    texts: Mapping[str, str]
    computed: int
    empty: int
    bad: tuple[Fault, ...]
    seconds: float


def read_words(
    pictures: Sequence[PictureFile],
    out: Path | str,
    reader: TextReader,
    *,
    chosen: Chosen = "captions",
    bad: Literal["stop", "skip"] = "stop",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WordsReport:
    """Read the words of pictures, and write them to `out`.

    Args:
        chosen: lines that make up `text`; all lines are kept in any case.
        bad: `stop` at the first picture that cannot be read, or at which the reader dies, or `skip` it.
        resume: take over the words of equal pictures by the same reader, from an interrupted or finished run.
        overwrite: replace a file of words; without `resume`, all pictures are read again.

    Raises:
        ConfigError: something else exists at `out`, or an interrupted run and neither of the two is set.
        FormatError: a picture cannot be read.
        ReaderDied: the reader died, or died `DEATHS` times in a row.
    """
    begin, out = time.perf_counter(), Path(out)
    partial = out.with_name(f"{out.name}.partial")
    _require_ours(out, partial, resume=resume, overwrite=overwrite)
    with claimed(out):
        before = [record for path in (out, partial) if resume for record in _same(path, reader)]
        # By content, so that a picture that comes twice, or under a new name, is not read again.
        known = {record["sha256"]: record["lines"] for record in before}
        records, faults, old, deaths = list[Record](), list[Fault](), len(known), 0
        with _journal(partial, before) as journal:
            for number, picture in enumerate(pictures, 1):
                try:
                    records.append(_read(picture, out, reader, known, chosen, journal))
                    deaths = 0
                except (FormatError, ReaderDied) as error:
                    deaths += isinstance(error, ReaderDied)
                    if bad == "stop" or deaths == DEATHS:
                        raise _stopped(error, picture.path, deaths) from error
                    faults.append(Fault(0, picture.key, str(error)))
                if progress is not None:
                    progress(number, len(pictures))
            if not records:
                raise FormatError(f"none of {len(pictures)} picture(s) could be read; the first: {faults[0]}")
        with atomic_file(out, "w", encoding="utf-8") as file:
            file.writelines(map(_dumped, records))
        partial.unlink(missing_ok=True)
    return WordsReport(
        path=out,
        texts={record["id"]: record["text"] for record in records},
        computed=len(known) - old,
        empty=sum(not record["text"] for record in records),
        bad=tuple(faults),
        seconds=time.perf_counter() - begin,
    )


def _read(
    picture: PictureFile,
    out: Path,
    reader: TextReader,
    known: dict[str, list[LineNode]],
    chosen: Chosen,
    journal: IO[str],
) -> Record:
    """Return the record of a picture; one that is not known becomes so, and goes into the journal."""
    with require_file(picture.path, "a picture file").open("rb") as file:
        checksum = file_digest(file, "sha256").hexdigest()
    nodes = known.get(checksum)
    if nodes is None:
        nodes = [*map(_as_node, arranged(reader.read([open_image(picture.path)])[0]))]
    record: Record = {
        "reader": reader.identity(),
        "sha256": checksum,
        "id": picture.key,
        "img": Path(relpath(picture.path, out.parent)).as_posix(),
        "text": words(map(_as_line, nodes), chosen),
        "lines": nodes,
    }
    if checksum not in known:
        known[checksum] = nodes
        journal.write(_dumped(record))
        journal.flush()
    return record


def _as_node(line: Line) -> LineNode:
    return {
        "text": line.text,
        "box": [*line.box],
        "score": line.score,
        "height": line.height,
        "scene": line.scene,
        "turned": line.turned,
    }


def _as_line(node: LineNode) -> Line:
    x1, y1, x2, y2 = map(float, node["box"])
    return Line(
        text=node["text"],
        box=(x1, y1, x2, y2),
        score=float(node["score"]),
        height=float(node["height"]),
        scene=node["scene"],
        turned=node["turned"],
    )


def _stopped(error: DiptychError, path: Path, deaths: int) -> DiptychError:
    """The error that ends a run, with what to do."""
    if deaths == DEATHS:
        return ReaderDied(f"{error} It died {DEATHS} times in a row, last of {path}.")
    where = f"{path}: " if isinstance(error, ReaderDied) else ""
    advice = f"bad=skip (or --bad skip) leaves such pictures out; {RESUME} continues from here."
    return type(error)(f"{where}{error} {advice}")


def read_records(path: Path | str) -> Iterator[Record]:
    """Yield the records of a file that `read_words` wrote.

    Raises:
        FormatError: a line is invalid; names file and line.
    """
    path = require_file(path, "JSON lines of read words")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
            where = f"{path}:{number}"
            if not line.endswith(b"\n"):
                raise FormatError(f"{where}: the line is cut off, or longer than {LONGEST:,} bytes. {ADVICE}")
            values = parse_json(line, where=where, advice=ADVICE)
            record = check_shape(values, Record, where=where, advice=ADVICE)
            if any(len(one["box"]) != 4 for one in record["lines"]):
                raise FormatError(f"{where}: a box has not four numbers, x1 y1 x2 y2. {ADVICE}")
            yield record


def _same(path: Path, reader: TextReader) -> Iterator[Record]:
    """Records by the same reader; the last line of a killed run may be cut off."""
    if not path.is_file():
        return
    try:
        for record in read_records(path):
            if record["reader"] == reader.identity():
                yield record
    except FormatError:
        # Of an unfinished file, what comes before the damage is used; a finished one is another's work.
        if path.suffix != ".partial":
            raise


def _require_ours(out: Path, partial: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that what exists may be replaced: files of words, and only if a setting says so."""
    for path in (partial, out):
        if not path.exists():
            continue
        if not (resume or overwrite):
            what = (
                "holds the finished part of an interrupted run" if path == partial else "exists and is kept"
            )
            raise ConfigError(
                f"{path} {what}; set {RESUME} to continue from it, {OVERWRITE} to replace it, or "
                "choose another place."
            )
        with require_file(path, "a file of read words").open("rb") as file:
            head = file.read(len(HEAD))
        if not HEAD.startswith(head):
            raise ConfigError(f"{path} is not a file of read words, and is kept; choose another place.")


@contextmanager
def _journal(path: Path, records: Sequence[Record]) -> Iterator[IO[str]]:
    """Open the unfinished file with some records, to append to it; it goes if it stays empty."""
    # Written anew: the last line of a killed run may be cut off, and nothing can be appended to that.
    with atomic_file(path, "w", encoding="utf-8") as file:
        file.writelines(map(_dumped, records))
    try:
        with path.open("a", encoding="utf-8") as file:
            yield file
    finally:
        if not path.stat().st_size:
            path.unlink()


def _dumped(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
