"""Choice of a verb's data set: by --data, by a prediction file or bundle, or by the files in its folder."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.documents import parse_yaml
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.datasets import Data


def chosen_data(
    arguments: argparse.Namespace,
    root: Path | None,
    node: Mapping[str, Any] | None = None,
    where: str = "",
    *,
    sentences: bool = False,
) -> "Data":
    """Return the data set of a verb, with the settings of --set; print which it is unless --data names it.

    Args:
        sentences: whether the verb reads files of sentences, which decides settings that nothing records.
    """
    from diptych.datasets import find_data

    data = find_data(root, name=arguments.data, node=node, where=where)
    say_data(arguments, data)
    given = dict(data.kind.written) if sentences else {}
    given |= dict(map(_setting, getattr(arguments, "set", ())))
    return replace(data, node={**data.node, **given}) if given else data


def _setting(word: str) -> tuple[str, Any]:
    """Key and value of an option --set; the value is written as in YAML."""
    key, equals, value = word.partition("=")
    if not (equals and key.isidentifier()):
        raise ConfigError(f"--set is {word!r}; expected KEY=VALUE, such as lang=fr.")
    return key, parse_yaml(value, where=f"--set {word}")


def say_data(arguments: argparse.Namespace, data: "Data") -> None:
    """Print which data set was chosen, unless --data names it or the output is JSON."""
    if arguments.data is None and not getattr(arguments, "json", False):
        print(f"data set: {data.kind.name} (by {data.why})")


def node_of_files(files: Iterable[Path]) -> tuple[Mapping[str, Any] | None, str]:
    """Return the data set recorded in the first prediction file that has one, and where it was read.

    An official file has no room for it; the .npz file beside it does.
    """
    from diptych.predictions import Predictions

    for path in files:
        # `test_predict.json` is the official file of VQA and GQA, and `test.npz` the one beside it.
        names = (path.stem, path.stem.removesuffix("_predict"))
        stored = next((one for name in names if (one := path.with_name(f"{name}.npz")).is_file()), None)
        if stored is not None:
            # From a file of a stranger: `open_split` opens nothing but data sets.
            node = Predictions.load(stored).meta.get("data")
            if node is not None:
                return node, f"the header of {stored}"
    return None, ""
