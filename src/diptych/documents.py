"""Reads and writes all JSON and YAML files of settings and state.

Files may be untrusted: their size, nesting and types are checked before a value is used, and every error
names the file and the key. YAML is limited to plain data: no tags that construct objects, no aliases (a few
nested lines of them expand to gigabytes), no repeated keys.
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
MAX_BYTES = 64 << 20  # size limit of a file
MAX_DEPTH = 64  # limit of nested lists and mappings; diptych's own files have fewer than ten levels


def closed(shape: type[T]) -> type[T]:
    """Mark a TypedDict as closed: additional keys are an error when a file is read."""
    shape.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return shape


def extensible(shape: type[T]) -> type[T]:
    """Mark a TypedDict as extensible: additional keys are kept. Without a decorator they are dropped."""
    shape.__pydantic_config__ = {"extra": "allow"}  # type: ignore[attr-defined]
    return shape


def read_yaml(path: Path | str, shape: type[T] | GenericAlias, *, advice: str = "") -> T:
    """Read a YAML file and check that its content has the type `shape`.

    Args:
        shape: any type that pydantic can check: a `typing_extensions.TypedDict`, `dict[str, int]`, ... Values
            are not converted, except that a float may be written as a whole number.
        advice: last sentence of the error message, which says what to do.

    Raises:
        FormatError: the file is not a regular file, too large, not UTF-8 or not YAML, or its content has
            another type (names the key).
    """
    return check_shape(
        parse_yaml(_text(path, advice), where=path, advice=advice), shape, where=path, advice=advice
    )


def read_json(path: Path | str, shape: type[T] | GenericAlias, *, advice: str = "") -> T:
    """Read a JSON file and check that its content has the type `shape`; see `read_yaml`."""
    return check_shape(
        parse_json(_text(path, advice), where=path, advice=advice), shape, where=path, advice=advice
    )


def parse_yaml(text: str, *, where: object, advice: str = "") -> Any:
    """Parse a YAML text into plain values.

    Raises:
        FormatError: the text is not YAML, or has tags of objects, aliases, repeated keys, or nesting beyond
            `MAX_DEPTH`.
    """
    try:
        values = yaml.load(text, Loader=_PlainLoader)  # a subclass of SafeLoader with fewer features
    # Besides YAMLError, PyYAML raises the errors of int(), float(), date() and base64.
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
    """Parse a JSON text into plain values.

    Raises:
        FormatError: the text is not JSON or not UTF-8, or has repeated keys, unpaired surrogates, or nesting
            beyond `MAX_DEPTH`.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _refuse(where, _short(error), advice, error)
    return _plain(values, where, advice)


def dump_yaml(values: Any) -> str:
    """Write plain values as YAML that `read_yaml` accepts: in the given order, without aliases."""
    return yaml.dump(values, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def check_shape(values: Any, shape: type[T] | GenericAlias, *, where: object, advice: str = "") -> T:
    """Check that values have the type `shape`, and return them.

    Raises:
        FormatError: names the first key with another type, its value and the expected type.
    """
    from pydantic import ValidationError

    adapter = _adapter(shape)  # type: ignore[arg-type]
    try:
        # strict is repeated here, because types with their own configuration do not have the adapter's.
        checked: T = adapter.validate_python(values, strict=True)
        return checked
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        # For a missing key, pydantic gives the mapping around it, which says nothing.
        got = "" if first["type"] == "missing" else f"; got {shorten(first['input'])}"
        _refuse(where, f"{key}: {first['msg']}{got}{more}" if key else f"{first['msg']}{got}", advice, error)


@cache
def _adapter(shape: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter  # imported late, because it takes 0.1 s
    from pydantic.errors import PydanticUserError

    try:  # pydantic rejects this configuration for classes that have their own
        return TypeAdapter(shape, config=ConfigDict(strict=True, arbitrary_types_allowed=False))
    except PydanticUserError:
        return TypeAdapter(shape)


def shorten(value: object, limit: int = 80) -> str:
    """Return `repr(value)`, truncated for an error message."""
    # Only the size of large containers is shown, because their repr() may need a lot of memory.
    if isinstance(value, Mapping | list | tuple | set) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class _PlainDumper(yaml.SafeDumper):
    """PyYAML's SafeDumper without aliases: shared values are written each time they occur."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's SafeLoader without aliases and repeated keys, and with a depth limit."""

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
        # YAML and PyYAML disagree on repeated keys: the standard forbids them, PyYAML silently keeps the last
        # value.
        seen: set[object] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise _refused_key(key_node, f"the key {shorten(key)} is not text or a number")
            if key in seen:
                raise _refused_key(key_node, f"the key {shorten(key)} occurs twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refused_key(node: Any, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    # json keeps the last of equal keys, so two readers of one file could see different values.
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shorten(twice)} occurs twice")
    return made


def _plain(values: Any, where: object, advice: str) -> Any:
    """Check values for deep nesting and unpaired surrogates, on which later code would fail."""
    # Level by level and not recursively, because deep nesting would exceed Python's recursion limit.
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
            elif isinstance(value, str) and not value.isascii():  # isascii() is a stored flag, so it is cheap
                _require_text(value, where, advice)
        level, depth = below, depth + 1
    return values


def _require_text(value: str, where: object, advice: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        _refuse(where, f"{shorten(value)} has half a surrogate pair, which is not valid text", advice, error)


def _text(path: Path | str, advice: str) -> str:
    path = require_file(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        _refuse(
            path, f"has {size:,} bytes; expected at most {MAX_BYTES:,} for a file of settings", advice, None
        )
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        _refuse(path, f"is not UTF-8 at byte {error.start}", advice, error)


def _short(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be read ({text if len(text) <= 300 else text[:297] + '...'})"


def _refuse(where: object, problem: str, advice: str, cause: BaseException | None) -> NoReturn:
    raise FormatError(f"{where}: {problem}.{' ' if advice else ''}{advice}") from cause
