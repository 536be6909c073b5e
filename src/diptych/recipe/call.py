"""Calls of nodes in the user's own configuration, which is trusted.

A node means what it means to Hydra: `_target_` names a function, `_partial_` asks for the function with its
arguments filled in, and the other keys are arguments, which may be nodes again. Nodes in bundles are not
trusted; see `diptych.nodes`.
"""

import re
from collections.abc import Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any

from diptych.documents import shorten
from diptych.errors import ConfigError, DiptychError
from diptych.nodes import allowed, check_arguments

UNEXPECTED = re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'")


def call(node: Mapping[str, Any] | None, **arguments: Any) -> Any:
    """Call the target of a node; None stays None, such as a schedule that is not given.

    Any function can be a target, so nodes must be trusted.

    Raises:
        ConfigError: the target does not exist, a key is not a parameter, or a value has the wrong type.
    """
    if node is None:
        return None
    _check_node(node)
    return _called(node, arguments)


def _called(node: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    # Not `hydra.utils.instantiate`: it wraps each item of a list, 4 s for a table of 9,500 answers.
    if "_target_" not in node:
        raise ConfigError(f"{shorten(dict(node))} names nothing to call; expected a _target_.")
    target = node["_target_"]
    values = {key: _made(value) for key, value in node.items() if key not in ("_target_", "_partial_")}
    values |= arguments
    function: Any = None
    try:
        function = resolve_name(str(target))
        return partial(function, **values) if node.get("_partial_") else function(**values)
    except DiptychError:
        raise
    # other exceptions are bugs, and keep their traceback
    except (TypeError, ValueError, ImportError, AttributeError, RuntimeError, ArithmeticError) as error:
        # Python's error only names the unexpected argument; check_arguments() also suggests the nearest one
        if isinstance(error, TypeError) and (match := UNEXPECTED.search(str(error))):
            check_arguments(function, {match["name"]: None}, where=str(target))
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{target}({_shown(values)}) cannot be called: {reason}. Does a value have the wrong type?"
        ) from error


def _made(value: Any) -> Any:
    """A value with the nodes in it called."""
    if isinstance(value, Mapping):
        return _called(value, {}) if "_target_" in value else {key: _made(value[key]) for key in value}
    return [_made(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shorten(value)}" for key, value in values.items())


def _check_node(node: Any) -> None:
    """Check the arguments of diptych's own models, tasks and processors before anything is built."""
    if isinstance(node, Mapping):
        if (target := str(node.get("_target_"))) in allowed():
            values = {name: value for name, value in node.items() if not str(name).startswith("_")}
            check_arguments(allowed()[target], values, where=target)
        for value in node.values():
            _check_node(value)
