"""Input that runs code, or eats the machine, where a reader trusts it. Code that runs makes a marker."""

import pickle
import struct
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.damage import Damage, damage_yaml


def _text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def _call(module: bytes, name: bytes, *arguments: bytes) -> bytes:
    return b"\x80\x02c" + module + b"\n" + name + b"\n(" + b"".join(map(_text, arguments)) + b"tR."


class _Touch:
    """What pickle itself makes of a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def pickles(marker: Path) -> dict[str, bytes]:
    """Pickles by what they try."""
    touch = f"touch {marker}".encode()
    code = f"__import__('os').system('touch {marker}')".encode()
    shared = b"".join(
        b"]q" + bytes([n]) + b"(h" + bytes([n - 1]) * 1 + b"h" + bytes([n - 1]) + b"e" for n in range(1, 60)
    )
    dtype = b"cnumpy\ndtype\n(" + _text(b"V8") + b"K\x00K\x01tR(K\x03U\x01|NNNK\x08K\x01K\x3ftb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + _text(b"b") + b"tR"
    return {
        "path": pickle.dumps({"model": _Touch(marker)}),
        "system": _call(b"os", b"system", touch),
        "posix": _call(b"posix", b"system", touch),
        "eval": _call(b"builtins", b"eval", code),
        "exec of 2": _call(b"__builtin__", b"eval", code),
        "getattr": _call(b"builtins", b"getattr", b"os", b"system"),
        "subprocess": _call(b"subprocess", b"getoutput", touch),
        "import": _call(b"importlib", b"import_module", b"antigravity"),
        "runpy": _call(b"runpy", b"run_path", str(marker).encode()),
        "torch.load": _call(b"torch", b"load", str(marker).encode()),
        "numpy.testing": _call(b"numpy.testing._private.utils", b"runstring", code, b""),
        "dotted": b"\x80\x04" + _text(b"numpy") + _text(b"ndarray.__class__.__base__") + b"\x93.",
        "inst": b"(S'" + touch + b"'\nios\nsystem\n.",
        "newobj": b"\x80\x02cos\nsystem\n" + _text(touch) + b"\x85\x81.",
        "stack": b"\x80\x04" + _text(b"os") + _text(b"system") + b"\x93" + _text(touch) + b"\x85R.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02Pos.system\n.",
        "object array": b"\x80\x02}"
        + _text(b"model")
        + b"}"
        + _text(b"w")
        + array
        + b"(K\x01K\x01\x85"
        + dtype
        + b"\x89U\x08AAAAAAAAtbss.",
        "object dtype": b"\x80\x02cnumpy\ndtype\n" + _text(b"O8") + b"\x85R.",
        "class": b"\x80\x02cnumpy\nndarray\n.",
        "type state": b"\x80\x02cnumpy\ndtype\n}" + _text(b"value") + b"K\x05sb.",
        "huge array": b"\x80\x02cnumpy\nndarray\n\x8a\x05\x00\x00\x00\x00\x02\x85\x85R.",
        "deep": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "itself": b"\x80\x02}q\x00" + _text(b"model") + b"h\x00s.",
        "shared": b"\x80\x02]q\x00" + shared + b".",
        "memo": b"\x80\x02K\x01r\xff\xff\xff\x0f.",
        "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "bytearray": b"\x80\x05\x96\x00\x00\x00\x00\x04\x00\x00\x00.",
        "string": b"\x80\x02T\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "long": b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * 0x100000 + b".",
        "digits": b"I" + b"9" * 200_000 + b"\n.",
        "unhashable": b"\x80\x02}]K\x01s.",
        "buffer": b"\x80\x05\x97.",
        "nothing": b"\x80\x02N.",
        "number": b"\x80\x02K\x05.",
        "empty": b"",
    }


def settings(marker: Path) -> tuple[Any, ...]:
    """Values of settings that ask for a call, a lookup or a file."""
    touch = f"touch {marker}"
    return (
        {"_target_": "os.system", "_args_": [touch]},
        {"_target_": "pathlib.Path.touch", "_args_": [str(marker)]},
        {"_target_": "builtins.eval", "_args_": [f"__import__('os').system({touch!r})"]},
        {"_target_": "diptych.text.write_vocabulary", "path": str(marker), "tokens": ["x"]},
        {"_target_": "diptych.text.train_fasttext", "texts": ["a"], "out": str(marker)},
        {"_target_": "torch.load", "f": str(marker), "weights_only": False},
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        f"${{oc.create:{{_target_:os.system,_args_:['{touch}']}}}}",
        f"${{oc.create:{{_target_:pathlib.Path.touch,_args_:['{marker}']}}}}",
        "${oc.env:HOME}",
        "${oc.deprecated:model}",
        "${nothing}",
        "${bundle}/../../../etc/hostname",
        "???",
    )


def yaml_lines(marker: Path) -> tuple[bytes, ...]:
    """Tags that make PyYAML's unsafe loaders call something."""
    return (
        f"x: !!python/object/apply:os.system ['touch {marker}']\n".encode(),
        f"x: !!python/object/new:os.system ['touch {marker}']\n".encode(),
        b"x: !!python/name:os.system\n",
        b"x: !!python/module:antigravity\n",
    )


def damage_settings(marker: Path) -> Damage:
    """Of a YAML file: values of another type, calls in their place, tags, what breaks readers."""
    values, tags = settings(marker), yaml_lines(marker)

    def settings_of_strangers(data: bytes, rng: Random) -> bytes:
        return data + rng.choice(tags) if rng.random() < 0.1 else damage_yaml(data, rng, values)

    return settings_of_strangers
