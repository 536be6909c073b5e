"""Calls of nodes in the user's own configuration, which is trusted.

Nodes in bundles are not trusted; see `diptych.nodes`.
"""

import re
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from diptych.errors import ConfigError, DiptychError
from diptych.nodes import allowed, check_arguments

UNEXPECTED = re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'")


def call(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Call the target of a node. Any function can be a target, so nodes must be trusted.

    Raises:
        ConfigError: the target does not exist, a key is not a parameter, or a value has the wrong type.
    """
    _check_node(node)
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, DiptychError):
            raise cause from None
        # Python's error only names the unexpected argument; check_arguments() also suggests the nearest one
        if isinstance(cause, TypeError) and (match := UNEXPECTED.search(str(cause))):
            function = resolve_name(str(node["_target_"]))
            check_arguments(function, {match["name"]: None}, where=str(node["_target_"]))
        expected = TypeError | ValueError | ImportError | AttributeError | RuntimeError | ArithmeticError
        # other exceptions are bugs, and keep their traceback
        if isinstance(cause, expected) or cause is error:
            raise ConfigError(
                f"{_shown(node)} cannot be called: {str(cause).splitlines()[0]}. "
                "Does a value have the wrong type?"
            ) from cause
        raise cause from None


def _shown(node: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in node.items() if key != "_target_")
    return f"{node.get('_target_')}({arguments})"


def _check_node(node: Any) -> None:
    """Check the arguments of diptych's own models, tasks and processors before anything is built."""
    if isinstance(node, Mapping):
        if (target := str(node.get("_target_"))) in allowed():
            values = {name: value for name, value in node.items() if not str(name).startswith("_")}
            check_arguments(allowed()[target], values, where=target)
        for value in node.values():
            _check_node(value)
