"""The data set of a verb, where --data names it and where it does not."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.datasets import Data


def chosen_data(
    arguments: argparse.Namespace, root: Path | None, node: Mapping[str, Any] | None = None, where: str = ""
) -> "Data":
    """The data set of a verb; says which was taken where --data does not say it."""
    from diptych.datasets import find_data

    data = find_data(root, name=arguments.data, node=node, where=where)
    say_data(arguments, data)
    return data


def say_data(arguments: argparse.Namespace, data: "Data") -> None:
    """Say which data set was taken, where --data does not say it."""
    if arguments.data is None and not getattr(arguments, "json", False):
        print(f"data set: {data.kind.name} (by {data.why})")


def node_of_files(files: Iterable[Path]) -> tuple[Mapping[str, Any] | None, str]:
    """The data set that the first prediction file remembers, and that file; a CSV has its .npz beside it."""
    from diptych.predictions import Predictions

    for path in files:
        stored = path.with_suffix(".npz")
        if stored.is_file():
            node = Predictions.load(stored).meta.get("data")
            if node is not None:
                return node, f"the header of {stored}"
    return None, ""
