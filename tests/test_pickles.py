import os
import pickle
import subprocess

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
    with pytest.raises(FormatError, match=f"its pickle asks for {name}.* could run code"):
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
    with pytest.raises(FormatError, match="gives a state to a Name"):
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
    with pytest.raises(FormatError, match="nested more than 100 deep, or holds itself"):
        read_pickle(pickle.dumps(value))
