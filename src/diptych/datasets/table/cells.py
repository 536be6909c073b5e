"""Conversion of table cells to text and numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diptych.errors import FormatError


def cell_text(cell: Any) -> str:
    """Convert a cell to text: 5 and 5.0 become "5", true becomes "1" like in labels of 0 and 1, None ""."""
    if cell is None:
        return ""
    if isinstance(cell, bool):  # before numbers: True is an int
        return str(int(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell.strip() if isinstance(cell, str) else str(cell)


def cell_number(cell: Any, key: str, where: Path, what: str) -> float:
    try:
        value = float(cell)
    # Overflow: JSON integers may be larger than any float.
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if not np.isfinite(value):
        raise FormatError(f"{where}: the {what} of {key!r} is {cell!r:.80}; expected a number.")
    return value


def cell_score(cell: Any, key: str, where: Path) -> float:
    value = cell_number(cell, key, where, "label")
    if not 0 <= value <= 1:
        raise FormatError(f"{where}: a label of {key!r} is {cell!r:.80}; expected a number in [0, 1].")
    return value


def string_column(values: Sequence[str | None] | None) -> pa.Array | None:
    return None if values is None else pa.array(values, pa.string())
