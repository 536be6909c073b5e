"""Builds objects from the nodes of untrusted configuration files.

A node is exactly one call: `_target_` names a callable, the other keys are its parameters, and values may be
nodes again. Bundles may be untrusted, so nothing is imported by name: only the classes and builders of
`allowed` are called, every value must have the type that its parameter declares, and files must be inside the
bundle. Interpolations (`${...}`) are never resolved; only `${bundle}/` may be the prefix of a file name.
"""

import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from torch import nn

from diptych import data, models, tasks, text
from diptych import nn as blocks
from diptych.documents import shorten
from diptych.errors import ConfigError, DiptychError, FormatError, nearest
from diptych.files import require_file
from diptych.models import concat
from diptych.tasks import objectives

HERE = "${bundle}"  # the bundle's folder, in values of file parameters


def _is_task(candidate: object) -> bool:
    """Whether it is a form of decision that can be built; base classes and target encoders are not."""
    is_class = isinstance(candidate, type) and issubclass(candidate, tasks.Trainable)
    return is_class and not inspect.isabstract(candidate)


# Callables that a bundle may name, by module.
PARTS: dict[Any, str] = {
    models: " ".join(name for name in dir(models) if callable(getattr(models, name))),
    concat: "BertTower ImageTower VectorTower",
    blocks: "ClassifierHead JointImage PairAttention Pooled PromptHead Sizes VectorHead WeightNormHead "
    "efficientnet_lite0 mobilenet_v2 resnet50 resnet101 resnet152 resnet_tiny",
    tasks: " ".join(name for name in dir(tasks) if _is_task(getattr(tasks, name))),
    objectives: "Alignment Answers Contrast MaskedRegions MaskedText Matching RegionFeatures RegionLabels "
    "RegionMasking RegionProbabilities TagContrast WordMasking",
    text: "BytePair FastText SentencePiece WordPiece",
    data: "DetectorTransform Processor SquareTransform",
}


@cache
def allowed() -> Mapping[str, Callable[..., Any]]:
    """Callables that a bundle may name, by their exported names and by the names of their own modules."""
    callables: dict[str, Callable[..., Any]] = {}
    for module, names in PARTS.items():
        for name in names.split():
            value = getattr(module, name)
            made = value if isinstance(value, type) else inspect.signature(value).return_annotation
            if module is models and not (isinstance(made, type) and issubclass(made, nn.Module)):
                continue  # an export that does not build a model
            own = f"{value.__module__}.{value.__qualname__}"
            callables[f"{module.__name__}.{name}"] = callables[own] = value
    # Bundles of 0.1 use the former name.
    callables["diptych.data.Prepare"] = data.DetectorTransform
    return callables


def build(
    node: Mapping[str, Any],
    *,
    trust: Collection[str] = (),
    where: object = "the configuration",
    key: str = "",
    folder: Path | None = None,
    **arguments: Any,
) -> Any:
    """Call the target of a node of a bundle.

    Args:
        trust: further module prefixes whose own classes and functions may be called.
        where: file of the node, for error messages.
        key: key of the node in that file, for error messages.
        folder: folder of the bundle, for file parameters that start with `${bundle}/`.
        arguments: additional arguments of the call.

    Raises:
        ConfigError: a name is unknown, a value has the wrong type, or the call fails. Names file and key.
    """
    return _Builder(where=where, trust=tuple(trust), folder=folder).call(node, key, arguments)


@dataclass(frozen=True)
class Parameters:
    """Types of keyword parameters by name; `more` if other names are accepted, too."""

    types: Mapping[str, Any] = field(default_factory=dict)
    more: bool = False


@cache
def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return the keyword parameters of a callable; `**overrides` stands for those of the returned class."""
    signature = inspect.signature(function)
    own = {name: item for name, item in signature.parameters.items() if item.kind is not item.VAR_KEYWORD}
    types = {name: item.annotation for name, item in own.items() if item.kind is not item.VAR_POSITIONAL}
    passes_on = len(own) < len(signature.parameters)
    if passes_on and isinstance(signature.return_annotation, type):
        below = parameters_of(signature.return_annotation)
        return Parameters({**below.types, **types}, below.more)
    return Parameters(types, passes_on)


def function_of(node: Mapping[str, Any]) -> Callable[..., Any] | None:
    """What a node of one's own configuration calls; None where that cannot be found, as its call will say.

    Not for nodes of a stranger's file: the module is imported.
    """
    target = node.get("_target_")
    try:
        found = allowed().get(target) or pkgutil.resolve_name(target) if isinstance(target, str) else None
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of the keyword parameters of a callable; see `parameters_of`."""
    return list(parameters_of(function).types)


def is_file(annotation: Any) -> bool:
    """Whether a parameter of this type names a file: it is declared as a `Path`."""
    return annotation is Path or Path in get_args(annotation)


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any], *, where: str) -> None:
    """Check the names and types of arguments, except of nodes, which are checked when they are built.

    Raises:
        ConfigError: a name is unknown, or a value has another type than its parameter declares.
    """
    known = parameters_of(function)
    for name, value in values.items():
        if name not in known.types:
            if known.more:
                continue
            names = list(known.types)
            raise ConfigError(
                f"{where} has no parameter {name!r}.{nearest(str(name), names)} It takes: {', '.join(names)}."
            )
        if not _holds_node(value) and not _fits(value, known.types[name]):
            wanted = inspect.formatannotation(known.types[name]).replace("collections.abc.", "")
            text = isinstance(value, list) and _fits("", known.types[name])
            hint = f" On a command line, a text in brackets needs two kinds of quotes: {name}='\"[...]\"'."
            raise ConfigError(
                f"{where}: {name} is {shorten(value)}; expected {wanted}.{hint if text else ''}"
            )


@dataclass(frozen=True)
class _Builder:
    where: object
    trust: tuple[str, ...]
    folder: Path | None

    def call(
        self, node: Mapping[str, Any], key: str, arguments: Mapping[str, Any], *, later: bool = False
    ) -> Any:
        """Call the target of a node; with `later`, return a partial function instead."""
        target = node.get("_target_")
        function = self._function(target, key)
        values = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
        special = [name for name in values if str(name).startswith("_")]
        # Hydra's settings have no place here. `_partial_` may only repeat what the parameter's type says.
        if special or node.get("_partial_", later) is not later:
            name = special[0] if special else "_partial_"
            raise ConfigError(f"{self._at(key)}: {name} does not belong here; a node is exactly one call.")
        if twice := values.keys() & arguments.keys():  # such as `model` of a task
            raise ConfigError(f"{self._at(key)}: {min(twice)} does not belong here; it is given by diptych.")
        types = parameters_of(function).types
        made = {
            name: self._value(value, types.get(name, Any), f"{key}.{name}".lstrip("."))
            for name, value in values.items()
        }
        # After nested parts are built, so that these are compared with the declared classes.
        check_arguments(function, made, where=f"{self._at(key)}: {target}")
        if later:
            return partial(function, **made)
        try:
            return function(**made, **arguments)
        except ConfigError as error:
            raise ConfigError(f"{self._at(key)}: {error}") from error
        except DiptychError:
            raise
        except Exception as error:  # constructors may raise anything for invalid values
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"{self._at(key)}: {target} cannot be built: {reason}") from error

    def _function(self, target: object, key: str) -> Callable[..., Any]:
        if isinstance(target, str) and target in allowed():
            return allowed()[target]
        if isinstance(target, str) and self._trusted(target):
            try:
                resolved = pkgutil.resolve_name(target)
            except Exception as error:  # importing the user's code may raise anything
                raise ConfigError(f"{self._at(key)}: {target!r} cannot be found ({error}).") from error
            # A trusted module may import functions of others, such as os.system: check the defining module.
            if callable(resolved) and self._trusted(str(getattr(resolved, "__module__", ""))):
                function: Callable[..., Any] = resolved
                return function
        close = nearest(target, allowed()) if isinstance(target, str) else ""
        raise ConfigError(
            f"{self._at(key)}: _target_ is {shorten(target)}, which a bundle may not call (only models, "
            f"tasks, processors and tokenizers of diptych).{close} If you know and trust that code, pass its "
            "module as trust=."
        )

    def _trusted(self, name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.trust)

    def _value(self, value: Any, annotation: Any, key: str) -> Any:
        if _is_node(value):
            # A parameter that takes a function gets the callable itself, with the other keys filled in.
            return self.call(value, key, {}, later=_is_function(annotation))
        inner = _inner(annotation)
        if isinstance(value, Mapping):
            return {name: self._value(item, inner, f"{key}.{name}") for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item, inner, f"{key}.{row}") for row, item in enumerate(value)]
        if isinstance(value, str) and is_file(annotation):
            return str(self._file(value, key))
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{self._at(key)} is {shorten(value)}; interpolations are not allowed.")
        return value

    def _file(self, value: str, key: str) -> Path:
        rest = value.removeprefix(f"{HERE}/")
        # A null character would be a ValueError of the system call below.
        if self.folder is None or rest == value or "${" in rest or "\0" in rest:
            raise ConfigError(f"{self._at(key)} is {shorten(value)}; expected {HERE}/files/NAME.")
        path = self.folder / rest
        # resolve() follows `..` and links, both of which may lead out of the bundle.
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise FormatError(f"{self._at(key)} is {shorten(value)}, which is outside of the bundle.")
        return require_file(path)

    def _at(self, key: str) -> str:
        return f"{self.where}: {key}" if key else str(self.where)


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _holds_node(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_holds_node, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_node, value))


def _options(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the single type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_function(annotation: Any) -> bool:
    return any(get_origin(option) is Callable for option in _options(annotation))


def _inner(annotation: Any) -> Any:
    """The type of the values of a mapping or list."""
    for option in _options(annotation):
        if get_origin(option) in (Mapping, Sequence):
            return get_args(option)[-1]
    return Any


def _fits(value: Any, annotation: Any) -> bool:
    if is_file(annotation) and isinstance(value, str | Path):
        return True
    if annotation is Any or annotation is inspect.Parameter.empty:
        return True
    adapter = _adapter(annotation)
    if adapter is None:
        # Annotations that are no classes, such as those of functions, cannot be checked.
        return not isinstance(annotation, type) or isinstance(value, annotation)
    try:
        adapter.validate_python(value)
    except ValueError:  # pydantic's ValidationError is one
        return False
    return True


@cache
def _adapter(annotation: Any) -> Any:
    """Pydantic adapter that checks a type; None for classes that pydantic does not know, such as our own."""
    from pydantic import ConfigDict, TypeAdapter  # imported late, because it takes 0.1 s
    from pydantic.errors import PydanticUserError

    try:
        # YAML can write .inf and .nan, but no setting may have these values.
        strict = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(annotation, config=strict)
    except PydanticUserError:
        return None
