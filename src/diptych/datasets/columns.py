"""Columns of table files, in windows: CSV, TSV, JSON, JSON lines, Parquet."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
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
ROWS = 65_536
BLOCK = 16 << 20  # bytes of CSV at a time, also the longest row

Cells = dict[str, list[Any]]
"""Cells of some rows by column: text, numbers, booleans, lists of these, or None."""


def column_names(path: Path, header: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the columns; of JSON those of the first record.

    Raises:
        FormatError: the file is damaged, or no table.
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
    """The tables in a folder that have some columns; region features may lie beside them as a TSV."""
    found = []
    for path in sorted(root.iterdir()):
        if path.suffix in SUFFIXES and path.is_file():
            try:
                names = column_names(path, header)
            except FormatError:
                names = tuple(needed)  # damaged; whoever reads it says so
            if set(needed) <= set(names):
                found.append(path)
    return found


def read_cells(path: Path, names: Sequence[str], header: Sequence[str] | None = None) -> Iterator[Cells]:
    """The cells of some columns, window by window, in the order of the file. Cells of CSV and TSV are text.

    Raises:
        FormatError: the file is damaged, or a record is no object; names the row.
    """
    require_file(path, "a table")
    if path.suffix in (".json", ".jsonl"):
        records = _records(path)
        while window := list(islice(records, ROWS)):
            yield {name: [record.get(name) for record in window] for name in names}
        return
    with _damage_named(path):
        if path.suffix == ".parquet":
            batches = pyarrow.parquet.ParquetFile(path).iter_batches(ROWS, columns=list(names))
            yield from (batch.to_pydict() for batch in batches)
            return
        with _csv(path, names, header) as reader:
            yield from (batch.to_pydict() for batch in reader)


def _csv(path: Path, names: Sequence[str] | None, header: Sequence[str] | None) -> pa.csv.CSVStreamingReader:
    with path.open("rb") as file:
        first = file.readline(BLOCK)
    tab = path.suffix == ".tsv" or (b"\t" in first and b"," not in first)  # MAMI's .csv files hold tabs
    every = header or [
        name.strip('"') for name in first.decode("utf-8-sig", "replace").strip().split("\t" if tab else ",")
    ]
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=list(header) if header else None),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t" if tab else ",", newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=None if names is None else list(names),
            column_types=dict.fromkeys(names or every, pa.string()),
            strings_can_be_null=False,
        ),
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".json":
        with path.open("rb") as file:
            values = parse_json(file.read(), where=path)
        if isinstance(values, dict):  # by id
            values = [
                {"id": key, **value} if isinstance(value, dict) else value for key, value in values.items()
            ]
        found: Any = enumerate(values if isinstance(values, list) else [values], 1)
    else:
        found = _lines(path)
    for number, record in found:
        if not isinstance(record, dict):
            raise FormatError(
                f"{path}:{number}: got {type(record).__name__}; expected an object with named cells."
            )
        yield record


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
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
        raise FormatError(f"{path}: not a whole table ({reason}).") from error
