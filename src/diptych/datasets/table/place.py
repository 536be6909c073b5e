"""Where the table of a split lies, and which columns it must have."""

from collections.abc import Mapping
from os.path import normpath
from pathlib import Path
from typing import Any

from diptych.datasets.base import at_most
from diptych.datasets.columns import find_tables
from diptych.errors import ConfigError


def needed(settings: Mapping[str, Any]) -> list[str]:
    """The columns that every table has; the labels of test splits may be kept back."""
    columns = {role: name for role, name in (settings.get("columns") or {}).items() if name is not None}
    roles = ("id", "image", "text", "split")
    # Without any of these roles, only the label tells the table from others.
    return [columns[role] for role in roles if role in columns] or listed(columns.get("label") or [])


def only_file(root: Path, settings: Mapping[str, Any]) -> Path:
    file = settings.get("file")
    if file is not None:
        # The name may come from a stranger's bundle, so it must not lead out of the root.
        if normpath(str(file)).startswith(("/", "../")) or not (root / str(file)).is_file():
            raise ConfigError(f"{root} holds no file {file!r} (data.file).")
        return root / str(file)
    found = find_tables(root, needed(settings), settings.get("header"))
    if len(found) != 1:
        raise ConfigError(
            f"{root} holds {len(found)} tables with the columns {', '.join(needed(settings))} "
            f"({at_most([path.name for path in found])}); choose one with data.file=NAME."
        )
    return found[0]


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
