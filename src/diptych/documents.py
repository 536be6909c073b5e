"""JSON and YAML files of settings and state, read once for the whole package.

A file may come from a stranger, so its size, nesting and types are checked before anyone uses a value, and
every error names the file and the key. YAML is plain data here: no tags that construct objects, no aliases (a
few nested lines of them expand to gigabytes), no repeated keys.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Any, NoReturn, TypeVar

import yaml

from diptych.errors import FormatError
from diptych.files import require_file

T = TypeVar("T")
MAX_BYTES = 64 << 20
MAX_DEPTH = 64  # of nested lists and mappings; our own files need fewer than ten


def closed(shape: type[T]) -> type[T]:
    """A TypedDict that holds no further keys: the decorator refuses them when a file is read."""
    shape.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return shape


def extensible(shape: type[T]) -> type[T]:
    """A TypedDict that may hold further keys, which are kept; without a decorator they are dropped."""
    shape.__pydantic_config__ = {"extra": "allow"}  # type: ignore[attr-defined]
    return shape


def read_yaml(path: Path | str, shape: type[T] | GenericAlias, *, advice: str = "") -> T:
    """Read a YAML file whose content must have the type `shape`.

    Args:
        shape: what pydantic can check: a `typing_extensions.TypedDict`, `dict[str, int]`, ... Values are not
            converted, except that a whole number may stand for a float.
        advice: a last sentence for the error message: what to do.

    Raises:
        FormatError: not a regular file, too large, not UTF-8, not YAML, or of another type (names the key).
    """
    return check_shape(
        parse_yaml(_text(path, advice), where=path, advice=advice), shape, where=path, advice=advice
    )


def read_json(path: Path | str, shape: type[T] | GenericAlias, *, advice: str = "") -> T:
    """Read a JSON file whose content must have the type `shape`; arguments and errors as in `read_yaml`."""
    return check_shape(
        parse_json(_text(path, advice), where=path, advice=advice), shape, where=path, advice=advice
    )


def parse_yaml(text: str, *, where: object, advice: str = "") -> Any:
    """The plain values of a YAML text.

    Raises:
        FormatError: not YAML; or tags of objects, anchors, repeated keys, nesting beyond `MAX_DEPTH`.
    """
    try:
        values = yaml.load(text, Loader=_PlainLoader)  # a SafeLoader with fewer features
    # beside YAMLError, PyYAML lets the errors of int(), float(), date() and base64 through
    except (
        yaml.YAMLError,
        ValueError,
        IndexError,
        AttributeError,
        TypeError,
        RecursionError,
        OverflowError,
    ) as error:
        _refuse(where, _short(error), advice, error)
    return _plain(values, where, advice)


def parse_json(text: str | bytes, *, where: object, advice: str = "") -> Any:
    """The plain values of a JSON text.

    Raises:
        FormatError: not JSON or not UTF-8; or repeated keys, half surrogates, nesting beyond `MAX_DEPTH`.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _refuse(where, _short(error), advice, error)
    return _plain(values, where, advice)


def dump_yaml(values: Any) -> str:
    """Plain values as YAML that `read_yaml` takes: in the order given, without anchors and aliases."""
    return yaml.dump(values, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def check_shape(values: Any, shape: type[T] | GenericAlias, *, where: object, advice: str = "") -> T:
    """`values`, if they have the type `shape`.

    Raises:
        FormatError: names the first key that does not fit, what it is and what was expected.
    """
    from pydantic import ValidationError

    adapter = _adapter(shape)  # type: ignore[arg-type]
    try:
        checked: T = adapter.validate_python(values, strict=True)
        return checked
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        got = "" if first["type"] == "missing" else f"; got {shorten(first['input'])}"
        _refuse(where, f"{key}: {first['msg']}{got}{more}" if key else f"{first['msg']}{got}", advice, error)


@cache
def _adapter(shape: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter  # 0.1 s, paid by those who read such files
    from pydantic.errors import PydanticUserError

    try:  # classes with a configuration of their own do not take one from here
        return TypeAdapter(shape, config=ConfigDict(strict=True, arbitrary_types_allowed=False))
    except PydanticUserError:
        return TypeAdapter(shape)


def shorten(value: object, limit: int = 80) -> str:
    """`repr(value)`, cut for an error message."""
    # a repr of a huge or deep value is itself a way to spend memory, so containers are only named
    if isinstance(value, Mapping | list | tuple | set) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class _PlainDumper(yaml.SafeDumper):
    """PyYAML's SafeDumper, which writes what is shared as often as it occurs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's SafeLoader without aliases and repeated keys, and with a limit of depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.AliasEvent)
        self.depth += 1
        if alias or self.depth > MAX_DEPTH:
            problem = "aliases are not allowed" if alias else "nested too deeply"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, problem, mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise _refused_key(key_node, f"the key {shorten(key)} is no text or number")
            if key in seen:
                raise _refused_key(key_node, f"the key {shorten(key)} occurs twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refused_key(node: Any, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shorten(twice)} occurs twice")
    return made


def _plain(values: Any, where: object, advice: str) -> Any:
    """`values`, after looking for what later breaks writers and recursive functions."""
    level, depth = [values], 0
    while level:
        if depth > MAX_DEPTH:
            _refuse(where, f"nested more than {MAX_DEPTH} deep", advice, None)
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set):
                below += value
            elif isinstance(value, str) and not value.isascii():
                _require_text(value, where, advice)
        level, depth = below, depth + 1
    return values


def _require_text(value: str, where: object, advice: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        _refuse(where, f"{shorten(value)} holds half a surrogate pair, which is no text", advice, error)


def _text(path: Path | str, advice: str) -> str:
    path = require_file(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        _refuse(
            path, f"has {size:,} bytes; expected at most {MAX_BYTES:,} for a file of settings", advice, None
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, f"is not UTF-8 at byte {error.start}", advice, error)


def _short(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be read ({text if len(text) <= 300 else text[:297] + '...'})"


def _refuse(where: object, problem: str, advice: str, cause: BaseException | None) -> NoReturn:
    raise FormatError(f"{where}: {problem}.{' ' if advice else ''}{advice}") from cause
