"""A restricted pickle interpreter: it imports nothing, and calls only our stand-ins for known names."""

import io
import os
import pickle
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy import ndarray

from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import ByteStream

MAX_OPERATIONS = 10_000_000  # a list of the three million images of Conceptual Captions needs seven million
MAX_BITS = 512  # width of an integer; the widest in use are seeds of 128 bits
MAX_KEY = 16  # length of a tuple as key: tuples do not cache their hash, so a long one costs time at each use
ROOM = 1 << 20  # bytes and values that may be copied beyond the size of the file
BLOCK = 1 << 16  # shorter reads are not compared with the rest of the file
# Names that are rejected even where unknown names are accepted. They would not be called here, but a file
# with them is an attack on other readers.
ATTACKS = frozenset(
    ["os", "posix", "nt", "sys", "subprocess", "runpy", "importlib", "pty", "shutil", "socket", "ctypes"]
    + ["webbrowser", "timeit", "pdb", "io.open"]
    + [f"builtins.{name}" for name in ("eval", "exec", "compile", "open", "__import__", "breakpoint")]
)


class Name(NamedTuple):
    """Name of a class or function in a pickle; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Foreign(dict[Any, Any]):
    """Stand-in for an object of an unknown class: its name, and its items if it is a mapping."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def append(self, item: object) -> None:
        """Ignore items of lists and sets, which are not needed."""

    def extend(self, items: Sequence[object]) -> None:
        """Ignore items; see `append`."""


class Stateful(ABC):
    """A stand-in that a later BUILD instruction fills, and may replace by another value."""

    __slots__ = ("full", "value")

    def __init__(self) -> None:
        self.full = False
        self.value: Any = None

    @abstractmethod
    def build(self, machine: "Unpickler", state: Any) -> Any:
        """Set the state, and return the value that replaces this stand-in on the stack."""

    def fetched(self) -> Any:
        """Return the value for further references from the memo."""
        return self


StandIn = Callable[..., Any]  # called with the unpickler and the pickle's arguments


class Unpickler(pickle._Unpickler):
    """Reads pickles from a file, one per call of `load`.

    Args:
        file: seekable file; bytes after a pickle are left unread.
        stand_ins: functions that replace the calls of known names.
        foreign: replace objects of all other names by `Foreign`, except names in `ATTACKS`; if False, reject
            them.
        persistent: resolves ids of objects outside of the pickle; None rejects such ids.

    Raises:
        FormatError: `load` found a name, an instruction or a value that is not allowed. A damaged pickle may
            raise almost any error; see `guarded`.
    """

    def __init__(
        self,
        file: ByteStream,
        stand_ins: Mapping[tuple[str, str], StandIn],
        *,
        foreign: bool = False,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        # Pickles of Python 2 hold bytes as text; latin1 maps them one to one.
        super().__init__(file, encoding="latin1")
        self.file, self.stand_ins, self.foreign, self.persistent = file, stand_ins, foreign, persistent
        start = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        file.seek(start)
        # Copies are paid from this, so that a small file cannot grow to gigabytes.
        self.room = self.end - start + ROOM

    def load(self) -> Any:
        """Read the next value, with at most `MAX_OPERATIONS` instructions."""
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.shared: set[int] = set()
        self.append = self.stack.append
        in_memory = isinstance(self.file, io.BytesIO)  # its read() never allocates more than its content
        self.read, self.readline = self.file.read if in_memory else self._take, self.file.readline
        next_byte, instructions = self.file.read, INSTRUCTIONS
        for _ in range(MAX_OPERATIONS):
            # A truncated value is noticed here at the latest, because no instruction follows.
            if (instruction := instructions.get(code := next_byte(1))) is not None:
                instruction(self)
            elif code == pickle.STOP:
                return self.stack.pop()
            elif code:
                raise FormatError(f"it is not a complete pickle of plain values (instruction {code!r}).")
            else:
                raise EOFError("it ends too soon")
        raise FormatError(f"it has more than {MAX_OPERATIONS:,} instructions.")

    def pop_mark(self) -> list[Any]:
        """Remove and return the items on the stack since the last mark."""
        items, self.stack = self.stack, self.metastack.pop()
        self.append = self.stack.append
        return items

    def spend(self, count: int) -> None:
        """Count a copy of `count` bytes or values against the limit of memory."""
        self.room -= count
        if self.room < 0:
            raise FormatError("it repeats its values without limit.")

    def find_class(self, module: str, name: str) -> Name:
        """Return the name without importing anything; raise FormatError if it is not allowed."""
        named = Name(module, name)
        if named not in self.stand_ins:
            root = module.replace("__builtin__", "builtins").partition(".")[0]
            attack = root in ATTACKS or f"{root}.{name.partition('.')[0]}" in ATTACKS
            if attack or not self.foreign:
                raise FormatError(
                    f"its pickle asks for {shorten(str(named))[1:-1]}, which could run code; only numbers, "
                    "texts, lists, dicts and arrays are read."
                )
        return named

    def _take(self, count: int) -> bytes:
        if count > BLOCK and count > self.end - self.file.tell():
            raise EOFError(f"{count:,} bytes asked for, fewer are left")
        return self.file.read(count)

    def _make(self, function: Any, arguments: Any) -> Any:
        """Evaluate a call; `function` is a name, or the result of another call."""
        if isinstance(function, Foreign):
            return Foreign(function.name)
        if not isinstance(function, Name):
            raise FormatError(f"it calls {shorten(function)}.")
        if (stand_in := self.stand_ins.get(function)) is not None:
            try:
                return stand_in(self, *arguments)
            except FormatError:  # such as an array of dates, in a part that is ignored anyway
                if not self.foreign:
                    raise
        # The first argument of generic constructors is the class.
        about = next(iter(arguments), None) if function in GENERIC else None
        return Foreign(str(about if isinstance(about, Name) else function))

    def _fetch(self, index: int) -> None:
        value = self.memo[index]
        if isinstance(value, Stateful):
            value = value.fetched()
        if isinstance(value, (list, dict, tuple)):  # each occurrence counts, see pickles._require_plain
            self.shared.add(id(value))
        self.append(value)


GENERIC = frozenset(
    Name(module, name)
    for module, names in {
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "copy_reg": "_reconstructor __newobj__ __newobj_ex__",
        "builtins": "getattr",
        "__builtin__": "getattr",
    }.items()
    for name in names.split()
)


def _put(machine: Unpickler) -> None:
    # Larger indices could be chosen to have equal hashes, which makes the memo's dict slow.
    if not 0 <= (index := int(machine.readline()[:-1])) < 1 << 32:
        raise FormatError(f"it has a memo index of {index.bit_length()} bits.")
    machine.memo[index] = machine.stack[-1]


def _bytes(machine: Unpickler) -> None:
    machine.append(machine.read(struct.unpack("<Q", machine.read(8))[0]))


def _reduce(machine: Unpickler) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine._make(machine.stack[-1], arguments)


def _new_with_names(machine: Unpickler) -> None:
    machine.stack.pop()
    _reduce(machine)


def _instance(machine: Unpickler) -> None:
    module, name = (machine.readline()[:-1].decode() for _ in range(2))
    arguments = machine.pop_mark()
    machine.append(machine._make(machine.find_class(module, name), arguments))


def _object(machine: Unpickler) -> None:
    function, *arguments = machine.pop_mark()
    machine.append(machine._make(function, arguments))


def _build(machine: Unpickler) -> None:
    """Set the state of an object; only arrays and their number types use it."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Stateful):
        try:
            machine.stack[-1] = target.build(machine, state)
        except FormatError:
            if not machine.foreign:
                raise
            # Also set in the stand-in, because later references through the memo must get the same value.
            target.full, target.value = True, Foreign("numpy.ndarray")
            machine.stack[-1] = target.value
    elif isinstance(target, (str, bytes, int, float, list, tuple, Name, ndarray)) or target is None:
        raise FormatError(f"it gives a state to a {type(target).__name__}.")


def _items(machine: Unpickler) -> None:
    _set_items(machine, machine.pop_mark())


def _item(machine: Unpickler) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine, [key, value])


def _set_items(machine: Unpickler, items: Sequence[Any]) -> None:
    if not isinstance(target := machine.stack[-1], dict):
        raise FormatError(f"it sets items of a {type(target).__name__}.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[key_of(machine, key)] = value


def _dict(machine: Unpickler) -> None:
    items = machine.pop_mark()
    machine.append({})
    _set_items(machine, items)


def key_of(machine: Unpickler, key: Any) -> Any:
    """Check that a key is cheap to hash and that its hash cannot be chosen to collide with others."""
    parts = key if isinstance(key, tuple) and not isinstance(key, Name) else (key,)
    for part in parts:
        whole = isinstance(part, int) and -1 << 63 <= part < 1 << 64
        if not (whole or part is None or isinstance(part, (str, bytes, float))) or len(parts) > MAX_KEY:
            if machine.foreign:
                # In parts that are ignored anyway, any key will do.
                return f"<{part.name if isinstance(part, (Name, Foreign)) else type(part).__name__}>"
            raise FormatError(f"a key is {shorten(part)}; expected a text or a number.")
    return key


def _set(machine: Unpickler) -> None:
    if not machine.foreign:
        raise FormatError("it has a set; expected lists.")
    machine.append(Foreign("builtins.set"))


def _frozen_set(machine: Unpickler) -> None:
    machine.pop_mark()
    _set(machine)


def _persistent(machine: Unpickler) -> None:
    if machine.persistent is None:
        raise FormatError("it refers to objects outside of it.")
    machine.stack[-1] = machine.persistent(machine.stack[-1])


def _short(load: Callable[[Any], None]) -> Callable[[Unpickler], None]:
    """Wrap an instruction that loads an integer, and check its width."""

    def checked(machine: Unpickler) -> None:
        load(machine)
        if isinstance(value := machine.stack[-1], int) and value.bit_length() > MAX_BITS:
            raise FormatError(f"it has a whole number of {value.bit_length():,} bits.")

    return checked


_PLAIN = (
    "PROTO MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "EMPTY_LIST EMPTY_DICT EMPTY_TUPLE LIST TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS GLOBAL STACK_GLOBAL "
    "BINPUT LONG_BINPUT MEMOIZE"
)
_BASE: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
# Not supported on purpose: extension codes, out-of-band buffers, persistent ids as text, and DUP, which no
# pickler writes.
INSTRUCTIONS: dict[bytes, Callable[[Any], None]] = {
    **{getattr(pickle, name): _BASE[getattr(pickle, name)[0]] for name in _PLAIN.split()},
    **{code: _short(_BASE[code[0]]) for code in (pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4)},
    pickle.FRAME: lambda machine: machine.read(8),  # the length of a frame, which is only for read-ahead
    pickle.PUT: _put,
    pickle.GET: lambda machine: machine._fetch(int(machine.readline()[:-1])),
    pickle.BINGET: lambda machine: machine._fetch(machine.read(1)[0]),
    pickle.LONG_BINGET: lambda machine: machine._fetch(struct.unpack("<I", machine.read(4))[0]),
    pickle.BYTEARRAY8: _bytes,  # as bytes: nothing here changes them in place
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _new_with_names,
    pickle.INST: _instance,
    pickle.OBJ: _object,
    pickle.BUILD: _build,
    pickle.SETITEM: _item,
    pickle.SETITEMS: _items,
    pickle.DICT: _dict,
    pickle.EMPTY_SET: _set,
    pickle.ADDITEMS: lambda machine: machine.pop_mark(),  # the stand-in of a set has no content
    pickle.FROZENSET: _frozen_set,
    pickle.BINPERSID: _persistent,
}


def guarded(load: Callable[[], Any]) -> Any:
    """Call `load`, and turn every error into a `FormatError` whose message starts with "it"."""
    try:
        return load()
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle may raise almost any error
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise FormatError(f"it is not a complete pickle ({shorten(reason, 200)[1:-1]}).") from error
