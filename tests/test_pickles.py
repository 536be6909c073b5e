import os
import pickle
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.pickles import read_pickle

VALUE = {
    "features": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.ones((2, 2), np.float16),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "big": np.arange(3, dtype=">f4"),
    "one": np.float32(2.5),
    "count": np.int64(7),
    "nothing": np.zeros((0, 4), np.float32),
    "point": np.array(3.0),
    "names": ["a", ("b", None)],
    "path": b"\x00\xff",
    "flags": np.array([True, False]),
}


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


class Evaluation:
    def __reduce__(self):
        return eval, ("open('executed', 'w')",)


class Call:
    """A pickle that calls `function` with `arguments` and gives the result `state`."""

    def __init__(self, function, arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_and_arrays_of_any_protocol_are_read(protocol):
    got = read_pickle(pickle.dumps(VALUE, protocol=protocol))
    assert list(got) == list(VALUE)
    for name, expected in VALUE.items():
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
            assert got[name].dtype == expected.dtype
        else:
            assert got[name] == expected


def test_pickles_of_old_numpy_and_of_python_2_are_read():
    old = pickle.dumps(VALUE, protocol=2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(read_pickle(old)["features"], VALUE["features"])
    # {'a': array([1., 2.], dtype=float32)} of Python 2, whose bytes are texts
    array = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08\x00\x00\x80?\x00\x00\x00@tbs."
    )
    np.testing.assert_array_equal(read_pickle(array)["a"], [1, 2])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Command(), r"(posix|nt)\.system"),
        ({"features": Command()}, r"(posix|nt)\.system"),
        (Evaluation(), r"(builtins|__builtin__)\.eval"),
        (np.load, r"numpy\.load"),
        (np.random.default_rng(0), r"numpy\.random"),
        (subprocess.Popen, r"(subprocess|commands)\.Popen"),
        ({1, 2}, r"(builtins|__builtin__)\.set"),
        (3 + 1j, r"(builtins|__builtin__)\.complex"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 3])
def test_nothing_is_executed_and_what_was_wanted_is_named(tmp_path, monkeypatch, value, name, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=f" {name}"):
        read_pickle(pickle.dumps(value, protocol=protocol))
    assert not list(tmp_path.iterdir())


def test_the_attack_works_on_python_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Command()))
    assert (tmp_path / "executed").exists()


RECONSTRUCT, NUMBER = np.arange(2).__reduce__()[0], np.dtype("f8")
OBJECTS = (1, (2,), np.dtype("O"), False, b"\x41" * 16)


@pytest.mark.parametrize(
    "value",
    [
        Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), OBJECTS),  # bytes taken for addresses of objects
        Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (10**6,), NUMBER, False, b"1234")),  # reads too far
        Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (-1,), NUMBER, False, b"")),
        Call(RECONSTRUCT, (np.ndarray, (0,), b"b"), 5),
        np.zeros(2, [("a", "f4"), ("b", "O")]),
        np.array(["text"]),
        np.dtype("f4"),
        np.array([1, 2], "M8[s]"),
    ],
)
def test_arrays_that_lie_about_their_memory_are_refused(value):
    with pytest.raises(FormatError):
        read_pickle(pickle.dumps(value, protocol=2))


def test_a_stand_in_cannot_be_changed_by_a_pickle():
    evil = b"cnumpy\nndarray\n}(U\x05valueK\x01ub."
    with pytest.raises(FormatError, match=" Name"):
        read_pickle(evil)
    np.testing.assert_array_equal(read_pickle(pickle.dumps(np.arange(3))), [0, 1, 2])


def test_every_cut_and_every_changed_byte_is_an_error_or_a_value():
    whole = pickle.dumps({"a": np.arange(2.0), "b": [1, "x"]}, protocol=2)
    for size in range(len(whole)):
        with pytest.raises(FormatError):
            read_pickle(whole[:size])
    for place in range(len(whole)):
        for byte in (0, 0x2E, 0x63, 0xFF):
            damaged = whole[:place] + bytes([byte]) + whole[place + 1 :]
            try:
                read_pickle(damaged)
            except FormatError:
                continue


def test_a_list_that_holds_itself_is_an_error():
    value: list[object] = []
    value.append(value)
    with pytest.raises(FormatError, match=" 100 "):
        read_pickle(pickle.dumps(value))


def text(value):
    """The instruction that puts a text onto the stack."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def shared(kind):
    """Forty levels of which each holds the one below it twice: few bytes, a trillion values."""
    if kind == "tuple":
        return b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n - 1, n - 1, n) for n in range(1, 40)) + b"."
    return b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(1, 40)) + b"."


AGAIN = b"h\x00h\x01\x85R"  # the first value called with the second
ENDLESS = {
    "memo": b"\x80\x02K\x01r\xff\xff\xff\x0f.",
    "memo in text": b"K\x01p" + b"9" * 40 + b"\n.",
    "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "bytearray": b"\x80\x05\x96\x00\x00\x00\x00\x04\x00\x00\x00.",
    "text": b"\x80\x04\x8d\x00\x00\x00\x00\x04\x00\x00\x00.",
    "string": b"\x80\x02T\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "whole number": b"\x80\x02\x8b\xff\xff\x00\x00" + b"\x7f" * 0xFFFF + b".",
    "whole number in text": b"L0x" + b"f" * 200_000 + b"L\n.",
    "deep tuples": b"\x80\x02" + b"(" * 9_000 + b"t" * 9_000 + b".",
    "deep lists": b"\x80\x02]" + b"]" * 9_000 + b"a" * 9_000 + b".",
    "self": b"\x80\x02]q\x00h\x00a.",
    "self in a dict": b"\x80\x02}q\x00" + text("a") + b"h\x00s.",
    "shared lists": shared("list"),
    "shared tuples": shared("tuple"),
    "shared key": b"\x80\x02}" + shared("tuple")[2:-1] + b"K\x01s.",
    "copies of a text": b"\x80\x02c_codecs\nencode\nq\x00" + text("x" * 99_999) + b"q\x01" + AGAIN * 99,
    "copies of a list": b"ccollections\nOrderedDict\nq\x00(" + b"K\x01" * 99_999 + b"lq\x01" + AGAIN * 99,
    "huge shape": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n)R(K\x01\x8a\x08"
    b"\xff\xff\xff\xff\xff\xff\xff\x7f\x85"
    b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R\x89C\x00tb.",
}  # fmt: skip


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("program", ENDLESS.values(), ids=ENDLESS)
def test_a_small_pickle_takes_no_more_than_its_size(tmp_path, program, on_disk):
    (tmp_path / "p").write_bytes(program)
    tracemalloc.start()
    try:
        with (tmp_path / "p").open("rb") as file:
            read_pickle(file if on_disk else program)
    except FormatError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02\x82\x01.", r"b'\\x82'"),  # a code of the extension registry
        (b"\x80\x05\x97.", r"b'\\x97'"),  # a buffer outside of the pickle
        (b"\x80\x02Pos.system\n.", "b'P'"),
        (b"\x80\x02K\x01Q.", "outside"),
        (b"\x80\x02K\x012.", "b'2'"),
        (b"\x80\x02K\x01)R.", r" 1\."),
        (b"\x80\x02]}b.", r" list\."),
        (b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93.", r"numpy\.ndarray\.__class__"),
        (b"(S'x'\nios\nsystem\n.", r"os\.system"),
        (b"(cos\nsystem\nS'x'\no.", r"os\.system"),
        (b"\x80\x04cos\nsystem\n)}\x92.", r"os\.system"),
        (b"\x80\x02cnumpy\ndtype\n" + text("V8") + b"\x85R.", "'V8'"),
        (b"\x80\x02cnumpy\ndtype\n" + text("f4") + b"\x85R(K\x03U\x01<N(U\x01atNtb.", "records"),
        (b"\x80\x02}]K\x01s.", r" key .*\[\]"),
        (b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n)Rq\x00(h\x00ltb.", "itself"),
        (b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.", "UnicodeEncodeError"),
    ],
)
def test_instructions_and_states_that_plain_values_do_not_need(program, message):
    with pytest.raises(FormatError, match=message):
        read_pickle(program)


def test_a_long_list_shared_by_many_is_still_one_list():
    names = [f"object {number}" for number in range(1000)]
    got = read_pickle(pickle.dumps({"a": names, "b": names, "c": (names, {"d": names})}))
    assert got["a"] is got["c"][1]["d"]
    assert got["b"] == names
