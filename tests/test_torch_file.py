import argparse
import collections
import enum
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.convert.load import read_source, read_weights
from diptych.errors import FormatError

BASE = torch.arange(24.0).reshape(4, 6)
TENSORS = {
    "base": BASE,
    "transposed": BASE.t(),
    "part": BASE[1:3, 2:5],
    "one": BASE[2, 3],
    "nothing": torch.empty(0, 5),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "half": BASE.half(),
    "bfloat16": BASE.bfloat16(),
    "complex": torch.ones(3, dtype=torch.complex64),
    "whole": torch.arange(3),
    "flags": torch.tensor([True, False]),
    "eight": torch.ones(4).to(torch.float8_e4m3fn),
    "unsigned": torch.arange(3).to(torch.uint16),
    "repeated": torch.ones(1, 3).expand(4, 3),
}


class Color(enum.Enum):
    RED = 1


class Settings:
    """A class that a stranger's program would have, and that holds itself."""

    def __init__(self):
        self.owner, self.table = self, torch.ones(3)


class Items(dict):
    """As EasyDict and Lightning's AttributeDict."""


def training():
    """What people save beside the weights."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    return {
        "args": argparse.Namespace(lr=1, out=Path("out")),
        "best": np.float64(0.5),
        "random": (torch.get_rng_state(), np.random.get_state(), np.random.default_rng(0)),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(),
        "kind": Color.RED,
        Color.RED: 1,
        "path": Path("x"),
        "device": torch.device("cpu"),
        "type": torch.float16,
        "size": torch.Size([1]),
        "settings": Settings(),
        "counts": collections.Counter("abc"),
        "default": collections.defaultdict(list, a=[1]),
        "sets": [{1}, frozenset([2]), slice(1), 1 + 2j, bytearray(b"x"), range(3)],
        "dates": np.array(["2020"], "M8[D]"),
        "names": np.array(["a"]),
    }


def numbers(tensor):
    """The bytes, since torch cannot compare all types."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_tensor_comes_back(tmp_path, zipped, protocol):
    path = tmp_path / "w.pt"
    torch.save(TENSORS, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    got = read_weights(path)
    for name, expected in TENSORS.items():
        assert (got[name].dtype, got[name].shape) == (expected.dtype, expected.shape), name
        assert torch.equal(numbers(got[name]), numbers(expected)), name


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_own_checkpoints_give_their_tensors_and_list_the_rest(tmp_path, zipped, protocol):
    path = tmp_path / "own.pth"
    content = {**training(), "model": {"a.weight": BASE}}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    source = read_source(path)
    assert list(source.weights) == ["a.weight"]
    assert torch.equal(source.weights["a.weight"], BASE)
    (left,) = source.junk.values()
    assert len(left) == len(content) - 1
    assert {"args (argparse.Namespace)", "optimizer", f"settings ({Settings.__module__}.Settings)"} <= set(
        left
    )


@pytest.mark.parametrize(
    "wrapped",
    [
        {"state_dict": TENSORS, "hyper_parameters": Items(x=1), "callbacks": {}},
        {"model": Items(TENSORS)},
        {"net": TENSORS, "epoch": 3},
        {"epoch": 3, **TENSORS, "_extra_state": argparse.Namespace()},
        {"model": {f"_orig_mod.module.{name}": one for name, one in TENSORS.items()}},
        {"model": {"state_dict": collections.OrderedDict(TENSORS)}},
    ],
)
def test_wrappers_of_other_programs_come_off(tmp_path, wrapped):
    torch.save(wrapped, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == TENSORS.keys()


class Net(torch.nn.Module):
    pass


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"a": BASE.to_sparse()}, "'a' .* sparse "),
        (lambda: {"a": torch.empty(5, device="meta")}, "'a' .* meta,"),
        (lambda: {"a": torch.quantize_per_tensor(BASE, 0.1, 0, torch.qint8)}, "'a' .* quantized "),
        (lambda: {"a": torch.ones(1).expand(10**6, 10**6)}, r"'a' .*\(1000000, 1000000\) .* 1 "),
        (Net, r"\.Net; "),
        (lambda: {"model": Net()}, r"'model' .*\.Net; "),
        (lambda: {"generator": TENSORS, "critic": TENSORS}, "'generator', 'critic'"),
        (lambda: {"a\x1b[31m": BASE}, r"'a\\x1b\[31m'"),
        (lambda: {"a.gamma": BASE, "a.weight": BASE}, r"'a\.weight' .* gamma "),
    ],
)
def test_what_cannot_be_weights_is_named(tmp_path, make, message):
    torch.save(make(), tmp_path / "w.pt")
    with pytest.raises(FormatError, match=rf"w\.pt: .*{message}"):
        read_weights(tmp_path / "w.pt")


class Stored:
    """Stands for numbers beside the pickle."""


def rebuilt(offset, shape, strides, *, numbers=4, key="0"):
    """The pickle of a state dict with one tensor that lies as it is told."""

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Stored(), offset, shape, strides, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            kind = torch.FloatStorage
            return ("storage", kind, key, "cpu", numbers) if isinstance(value, Stored) else None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"a": Tensor()})
    return out.getvalue()


def archive(path, program, *, stored=bytes(16), folder="archive/", **more):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{folder}data.pkl", program)
        file.writestr(f"{folder}data/0", stored)
        for name, content in more.items():
            file.writestr(folder + name, content)


def legacy(path, program, *, stored=bytes(16), count=4, keys=("0",)):
    about = {"little_endian": True}
    parts = [pickle.dumps(one, protocol=2) for one in (0x1950A86A20F9469CFC6C, 1001, about)]
    path.write_bytes(
        b"".join([*parts, program, pickle.dumps(list(keys), 2), struct.pack("<q", count), stored])
    )


@pytest.mark.parametrize("write", [archive, legacy])
def test_a_tensor_put_together_by_hand_is_read(tmp_path, write):
    write(tmp_path / "w.pt", rebuilt(1, (2, 1), (2, 1)), stored=struct.pack("<4f", 1, 2, 3, 4))
    assert read_weights(tmp_path / "w.pt")["a"].tolist() == [[2], [4]]


@pytest.mark.parametrize("write", [archive, legacy])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((1, (4,), (1,)), r"\(4,\) .* 4 "),
        ((0, (2,), (2**61,)), r"\(2,\) .* 4 "),
        ((-1, (2,), (1,)), r"\(2,\) .*\(1,\)"),
        ((0, (-2,), (1,)), r"\(-2,\) .*\(1,\)"),
        ((0, (2,), (-1,)), r"\(2,\) .*\(-1,\)"),
        ((0, (2, 2), (1,)), r"\(2, 2\) .*\(1,\)"),
        ((0, (2**40, 2**40), (0, 0)), r"\(1099511627776, 1099511627776\) .* 4 "),
        ((2**63, (1,), (1,)), r"\(1,\) .*\(1,\)"),
        ((0.5, (1,), (1,)), "tensor"),
    ],
)
def test_tensors_that_lie_about_their_place_are_refused(tmp_path, write, place, message):
    write(tmp_path / "w.pt", rebuilt(*place))
    with pytest.raises(FormatError, match=rf"w\.pt: 'a' .*{message}"):
        read_weights(tmp_path / "w.pt")


def test_numbers_that_are_missing_or_too_many_are_named(tmp_path):
    path, program = tmp_path / "w.pt", rebuilt(0, (4,), (1,))
    cases: list[tuple[str, Callable[[], object]]] = [
        ("data/0' .* 15 .* 16", lambda: archive(path, program, stored=bytes(15))),
        ("data/1'", lambda: archive(path, rebuilt(0, (4,), (1,), key="1"))),
        ("little-endian", lambda: archive(path, program, byteorder="big")),
        (r" 2 .*data\.pkl", lambda: archive(path, program, **{"x/data.pkl": program})),
        ("data/0' .* 16 .* 4,000", lambda: archive(path, rebuilt(0, (4,), (1,), numbers=1000))),
        ("", lambda: legacy(path, program, stored=bytes(15))),
        ("", lambda: legacy(path, program, count=-1)),
        ("", lambda: legacy(path, program, keys=("0", "5"))),
        ("'0'", lambda: legacy(path, program, keys=())),
        ("", lambda: path.write_bytes(program)),
    ]
    for message, make in cases:
        make()
        with pytest.raises(FormatError, match=rf"w\.pt: .*{message}"):
            read_weights(path)


SIX = struct.pack("<6f", *range(6))


def tar(path, *, storage=SIX, shape=(2, 2), strides=(3, 1), offset=1, count=6):
    """As torch wrote before 0.1.10."""

    def dumped(*values):
        return b"".join(pickle.dumps(one, protocol=2) for one in values)

    class Saved(pickle.Pickler):
        def persistent_id(self, value):
            return "7" if isinstance(value, torch.Tensor) else None

    content = io.BytesIO()
    Saved(content, protocol=2).dump(collections.OrderedDict(a=torch.ones(1)))
    numbers = struct.pack(f"<i4x{2 * len(shape) + 1}q", len(shape), *shape, *strides, offset)
    parts = {
        "sys_info": dumped({}),
        "pickle": content.getvalue(),
        "storages": dumped(1, (5, "cpu", torch.FloatStorage))
        + struct.pack("<q", count)
        + storage
        + dumped([]),
        "tensors": dumped(1, (7, 5, torch.FloatTensor)) + numbers,
    }
    with tarfile.open(path, "w") as file:
        for name, data in parts.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            file.addfile(about, io.BytesIO(data))


def test_tars_of_2017_are_read(tmp_path):
    tar(tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")["a"].tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize(
    "options",
    [{"strides": (9, 1)}, {"offset": -1}, {"count": 2**40}, {"count": -1}, {"shape": (2**40, 2**40)}],
)
def test_tars_that_lie_are_refused(tmp_path, options):
    tar(tmp_path / "w.pth", **options)
    with pytest.raises(FormatError, match=r"w\.pth: "):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_every_cut_is_an_error_or_the_whole(tmp_path, zipped):
    path = tmp_path / "w.pt"
    torch.save({"a": BASE}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"w\.pt: "):
            read_weights(path)
