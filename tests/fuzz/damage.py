"""Ways to damage a file. Each takes bytes and a generator of random numbers, and gives other bytes."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

Damage = Callable[[bytes, Random], bytes]

NUMBERS = (
    0,
    1,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
)
TEXTS = (
    *(
        "",
        " ",
        "0",
        "-1",
        "nan",
        "1e999",
        "x" * 5000,
        "\udcff",
        "a\0b",
        "[/red]",
        "[bold]",
        "=1+1",
        "a,b",
        "\u2028",
    ),
    *(
        "..",
        ".",
        "../../outside",
        "/dev/zero",
        "/etc/hostname",
        "${oc.env:HOME}",
        "${",
        "\u0661",
        "e\u0301" * 200,
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64, 10**400),
    *([], {}, [[[]]], [None], [1, "a"], {"a": {"b": []}}, [0] * 2000, *TEXTS),
)


def damage_bytes(data: bytes, rng: Random) -> bytes:
    """One to three accidents: bits turned, blocks lost, doubled or zeroed, numbers replaced, cut short."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        size = len(changed)
        near = min(size, 96) if rng.random() < 0.4 else size  # what a header says matters most
        at, length = rng.randrange(max(near, 1)), rng.choice((1, 4, 16, 512, 4096))
        match rng.randrange(9):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                changed[at : at + length] = bytes(min(length, size - at))
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % (1 << 8 * width)
                changed[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 6:
                changed[at : at + length] = rng.randbytes(min(length, size - at))
            case 7:
                other = rng.randrange(max(size, 1))
                changed[at : at + length] = changed[other : other + length]
            case _:
                changed += rng.choice((b"\0", b"\n", changed[:length], b"PK\x03\x04", rng.randbytes(16)))
    return bytes(changed)


def damage_text(data: bytes, rng: Random) -> bytes:
    """What editors, shells and copies do to text, by lines."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(12):
        case 0:
            return b"\n".join(lines[:at])
        case 1:
            del lines[at]
        case 2:
            lines.insert(at, lines[rng.randrange(len(lines))])
        case 3:
            lines[at] = rng.choice(
                (b"", b" ", b"x" * 100_000, b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"\xe2\x80\xa8")
            )
        case 4:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        case 5:
            return b"\r\n".join(lines)
        case 6:
            return b"\xef\xbb\xbf" + data
        case 7:
            return data.decode("utf-8", "replace").encode(
                rng.choice(("utf-16", "utf-32", "latin1")), "replace"
            )
        case 8:
            return rng.choice((b"", b"\n", b"\n\n\n", b"\0" * 64, b"null", b"{}", b"[]", b"\x80\x02."))
        case 9:
            rng.shuffle(lines)
        case 10:
            lines[at] = lines[at].replace(b" ", b"\t")
        case _:
            return damage_bytes(data, rng)
    return b"\n".join(lines)


def damage_values(tree: Any, rng: Random, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy in which one value, at any depth, has another type, is gone, doubled or under another name."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        rest = {name: one for name, one in tree.items() if name != key}
        match rng.randrange(8):
            case 0:
                return rest
            case 1:
                return {**rest, rng.choice(TEXTS): tree[key]}
            case 2:
                return {**tree, rng.choice(("extra", "_target_", "", "0")): rng.choice(values)}
            case _:
                return {**tree, key: damage_values(tree[key], rng, values)}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        at = rng.randrange(len(tree))
        match rng.randrange(6):
            case 0:
                return tree[:at] + tree[at + 1 :]
            case 1:
                return [*tree, tree[at]]
            case _:
                return [*tree[:at], damage_values(tree[at], rng, values), *tree[at + 1 :]]
    return rng.choice(values)


def damage_json(data: bytes, rng: Random) -> bytes:
    """Of one JSON text: its values, mostly; else its letters."""
    if rng.random() < 0.2:
        return damage_text(data, rng)
    if rng.random() < 0.1:
        deep = rng.choice((70, 900, 100_000))
        return rng.choice((b"[" * deep, b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep))
    return json.dumps(damage_values(json.loads(data), rng)).encode()


def damage_lines(data: bytes, rng: Random) -> bytes:
    """Of JSON lines: the values of one line."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if not lines[at].strip() or rng.random() < 0.2:
        return damage_text(data, rng)
    lines[at] = damage_json(lines[at], rng).replace(b"\n", b" ")
    return b"\n".join(lines)


def damage_any_json(data: bytes, rng: Random) -> bytes:
    """Of a file of one JSON text, or of JSON lines."""
    return (damage_lines if data.count(b"\n{") > 1 else damage_json)(data, rng)


def damage_yaml(data: bytes, rng: Random, hostile: tuple[Any, ...] = ()) -> bytes:
    """Of a YAML text: its values (some of them `hostile`), its letters, or lines that break readers."""
    if rng.random() < 0.15:
        return damage_text(data, rng)
    if rng.random() < 0.25:
        return data + rng.choice(YAML_LINES).encode()
    values = hostile if hostile and rng.random() < 0.4 else VALUES
    tree = damage_values(yaml.safe_load(data), rng, values)
    return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "surrogatepass")


def damage_cells(separator: bytes) -> Damage:
    """Of a table: one or two cells of a line."""

    def damage(data: bytes, rng: Random) -> bytes:
        lines = data.split(b"\n")
        at = rng.randrange(max(1, len(lines) - 1))
        cells = lines[at].split(separator)
        for _ in range(rng.choice((1, 1, 2))):
            place = rng.randrange(len(cells))
            cell = cells[place]
            odd = (*CELLS, cell[:-4], cell[:5], cell * 3, b'"' + cell + b'"', b" " + cell, cells[-1])
            cells[place] = rng.choice(odd)
        if rng.random() < 0.1:
            cells = rng.choice((cells[:-1], [*cells, b"1"], cells[::-1]))
        lines[at] = separator.join(cells)
        return b"\n".join(lines)

    return damage


CELLS = (
    *(
        b"",
        b"-1",
        b"0",
        b"2",
        b"nan",
        b"inf",
        b"1e999",
        b"9" * 5000,
        b"36.5",
        b"AAAA",
        b"====",
        b"b'AAAA'",
        b'"',
        b"\0",
    ),
    *(
        b"\xff\xfe",
        b"2147483648",
        b"../../x",
        b"[/red]",
        b"=1+1",
        b"1_000",
        b"0x1",
        b"\xd9\xa1",
        b"\xed\xa0\x80",
    ),
)
YAML_LINES = (
    *(
        "x: 2001-99-99\n",
        "x: !!float abc\n",
        "x: !!int ''\n",
        "? [a, b]\n: c\n",
        "x: &x [*x]\n",
        "x: 0b\n",
        "\t- x\n",
    ),
    *(
        "<<: 5\n",
        "x: !!binary '@'\n",
        "x: !!set {a, b}\n",
        "x: .inf\n",
        "1: 2\n",
        "null: 2\n",
        "x: [\n",
        "--- 1\n",
    ),
    f"x: {'[' * 900}{']' * 900}\n",
    f"x: {'[' * 100_000}\n",
    "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(30)),
)
