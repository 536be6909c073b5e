"""Reads columns of table files in windows of rows: CSV, TSV, JSON, JSON lines, Parquet."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from diptych.documents import parse_json
from diptych.errors import FormatError
from diptych.files import require_file

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
ROWS = 65_536  # rows per window of JSON and Parquet
BLOCK = 16 << 20  # bytes per window of CSV; also the length limit of a row
LINES = 8 << 20  # bytes per window of JSON lines
BOM = b"\xef\xbb\xbf"
KINDS = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

Cells = dict[str, list[Any]]
"""Cells of a window of rows, by column: text, numbers, booleans, lists of these, or None."""


def column_names(path: Path, header: Sequence[str] | None = None) -> tuple[str, ...]:
    """Read the names of the columns; for JSON, those of the first record.

    Raises:
        FormatError: the file is damaged or not a table.
    """
    require_file(path, "a table")
    if header is not None:
        return tuple(header)
    if path.suffix == ".parquet":
        with _damage_named(path):
            return tuple(pyarrow.parquet.read_schema(path).names)
    if path.suffix in (".json", ".jsonl"):
        return tuple(next(_records(path), {}))
    with _damage_named(path), _csv(path, None, None) as reader:
        return tuple(reader.schema.names)


def find_tables(root: Path, needed: Collection[str], header: Sequence[str] | None = None) -> list[Path]:
    """Find the tables in a folder that have the needed columns."""
    # A folder may also have a TSV of region features, which does not have these columns.
    tables = []
    for path in sorted(root.iterdir()):
        if path.suffix in SUFFIXES and path.is_file():
            try:
                names = column_names(path, header)
            except FormatError:
                names = tuple(needed)  # damaged: keep the file, so that reading it raises a clear error
            if set(needed) <= set(names):
                tables.append(path)
    return tables


def read_cells(path: Path, names: Sequence[str], header: Sequence[str] | None = None) -> Iterator[Cells]:
    """Yield the cells of some columns in windows of rows, in file order. Cells of CSV and TSV are text.

    Raises:
        FormatError: the file is damaged, or a record is not an object; names the row.
    """
    require_file(path, "a table")
    if path.suffix in (".json", ".jsonl"):
        records = _records(path)
        while window := list(islice(records, ROWS)):
            yield {name: [record.get(name) for record in window] for name in names}
        return
    with _damage_named(path):
        yield from (batch.to_pydict() for batch in _batches(path, names, header))


@dataclass(frozen=True, slots=True)
class Window:
    """Some rows of a table.

    Args:
        columns: as Arrow has them; None where cells of a column are of several kinds, or a row is damaged.
        cells: the same cells as Python values.
    """

    columns: pa.RecordBatch | None
    cells: Callable[[], Cells]


def read_windows(path: Path, names: Sequence[str], header: Sequence[str] | None = None) -> Iterator[Window]:
    """As `read_cells`, for readers that take whole columns where they can."""
    require_file(path, "a table")
    if path.suffix == ".jsonl":
        yield from _line_windows(path, names)
    elif path.suffix == ".json":
        yield from (Window(None, partial(dict, cells)) for cells in read_cells(path, names, header))
    else:
        with _damage_named(path):
            yield from (Window(batch, batch.to_pydict) for batch in _batches(path, names, header))


def _batches(path: Path, names: Sequence[str], header: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        yield from pyarrow.parquet.ParquetFile(path).iter_batches(ROWS, columns=list(names))
        return
    with _csv(path, names, header) as reader:
        yield from reader


def _line_windows(path: Path, names: Sequence[str]) -> Iterator[Window]:
    number, kinds = 1, dict[str, pa.DataType]()
    with path.open("rb") as file:
        while block := file.read(LINES):
            block += file.readline()  # to the end of the last line
            if number == 1:
                block = block.removeprefix(BOM)
                kinds = _kinds(block, names)
            read = partial(_line_cells, path, block, number, names)
            # `read` decodes the same lines only if somebody asks for cells: usually to name the wrong row.
            yield Window(_plain_lines(block, kinds), read)
            # Line numbers of the next window; a last line without line feed ends the file anyway.
            number += block.count(b"\n")


def _kinds(block: bytes, names: Sequence[str]) -> dict[str, pa.DataType]:
    """Of the first cell of each column that is not empty; texts where there is none."""
    found: dict[str, pa.DataType] = {}
    # A thousand lines show the kinds; a column that is empty so far is read as text.
    for line in block.split(b"\n", 1000)[:1000]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        for name in names:
            value = record.get(name) if isinstance(record, dict) else None
            if type(value) in KINDS:
                found.setdefault(name, KINDS[type(value)])
    return {name: found.get(name, pa.string()) for name in names}


def _plain_lines(block: bytes, kinds: Mapping[str, pa.DataType]) -> pa.RecordBatch | None:
    """None unless every line is one object whose cells are of these kinds; Arrow takes more than lines."""
    import pyarrow.json as reader

    # Example: two lines `{"a": 1}` and `{"a": 2}` have one `}\n{` between them, so 1 + 1 == 2 lines pass.
    body = block.rstrip(b"\r\n")
    count = body.count(b"\n") + 1
    between = b"}\r\n{" if b"\r" in body else b"}\n{"
    # Arrow accepts objects across lines, or several in one, but then rows would not have their line numbers.
    if not (body.startswith(b"{") and body.endswith(b"}") and body.count(between) + 1 == count):
        return None
    try:
        if not body.isascii():
            body.decode()  # Arrow does not check UTF-8
        table = reader.read_json(
            pa.BufferReader(body),
            read_options=reader.ReadOptions(block_size=LINES),
            parse_options=reader.ParseOptions(
                explicit_schema=pa.schema(list(kinds.items())), unexpected_field_behavior="ignore"
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return table.combine_chunks().to_batches()[0] if table.num_rows == count else None


def _line_cells(path: Path, block: bytes, first: int, names: Sequence[str]) -> Cells:
    records = [*_objects(path, _lines(path, BytesIO(block), first))]
    return {name: [record.get(name) for record in records] for name in names}


def _csv(path: Path, names: Sequence[str] | None, header: Sequence[str] | None) -> pa.csv.CSVStreamingReader:
    with path.open("rb") as file:
        # Limited, because a file without line feeds would be read into memory as one line.
        first = file.readline(BLOCK)
    tab = path.suffix == ".tsv" or (b"\t" in first and b"," not in first)  # MAMI's .csv files have tabs
    every = header or [
        # The names are only needed to turn off the guessing of types; Arrow reads the header itself.
        name.strip('"')
        for name in first.decode("utf-8-sig", "replace").strip().split("\t" if tab else ",")
    ]
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=list(header) if header else None),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t" if tab else ",", newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=None if names is None else list(names),
            column_types=dict.fromkeys(names or every, pa.string()),  # no guessing: ids like 007 stay text
            strings_can_be_null=False,  # "NA" and "null" are text, too
        ),
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".json":
        with path.open("rb") as file:
            # Whole: JSON of one table has to fit into memory; large files come as lines or Parquet.
            values = parse_json(file.read(), where=path)
        if isinstance(values, dict):  # records by id
            values = [
                {"id": key, **value} if isinstance(value, dict) else value for key, value in values.items()
            ]
        yield from _objects(path, enumerate(values if isinstance(values, list) else [values], 1))
        return
    with path.open("rb") as file:
        yield from _objects(path, _lines(path, file))


def _objects(path: Path, numbered: Iterable[tuple[int, Any]]) -> Iterator[dict[str, Any]]:
    for number, record in numbered:
        if not isinstance(record, dict):
            raise FormatError(
                f"{path}:{number}: got {type(record).__name__}; expected an object with named cells."
            )
        yield record


def _lines(path: Path, lines: Iterable[bytes], first: int = 1) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, first):
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FormatError(f"{path}:{number}: not JSON ({error}).") from error


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise FormatError(f"{path}: not a complete table ({reason}).") from error
