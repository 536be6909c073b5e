"""Hostile requests: damaged JSON, multipart and pictures, wrong types, deep nesting, bombs."""

import json
import random
import struct
import zlib
from base64 import b64encode
from typing import Any

VALUES: list[Any] = [
    None,
    True,
    3,
    -1.5,
    "",
    "x" * 500,
    [],
    {},
    [[[]]],
    {"a": {"b": {}}},
    "\ud800",
    "\0",
    10**400,
]
FIELDS = ["id", "text", "image", "model", "policy", "options", "tags", "items", "__proto__", "input"]


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and has the pixels of none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def hostile(draw: random.Random, picture: bytes) -> tuple[str, bytes, str]:
    """Path, body and content type of a request."""
    path = draw.choice(["/v1/score", "/v1/score", "/v1/score/batch", "/v1/moderations", "/v1/feedback"])
    make = draw.choice([_json, _damaged, _deep, _picture, _multipart, _noise])
    body, kind = make(draw, picture)
    return path, body, kind


def _json(draw: random.Random, picture: bytes) -> tuple[bytes, str]:
    fields = draw.sample(FIELDS, draw.randint(0, 5))
    return json.dumps({name: draw.choice(VALUES) for name in fields}).encode(), "application/json"


def _good(picture: bytes) -> dict[str, Any]:
    return {
        "text": "what a day",
        "image": {"bytes": b64encode(picture).decode()},
        "options": {"ocr": "never"},
    }


def _damaged(draw: random.Random, picture: bytes) -> tuple[bytes, str]:
    body = bytearray(json.dumps(_good(picture)).encode())
    for _ in range(draw.randint(1, 5)):
        body[draw.randrange(len(body))] = draw.randrange(256)
    return bytes(body[: draw.randint(0, len(body))] if draw.random() < 0.5 else body), "application/json"


def _deep(draw: random.Random, picture: bytes) -> tuple[bytes, str]:
    depth = draw.choice([10, 1000, 100_000])
    inner = draw.choice(["[", '{"a":'])
    return f'{{"{draw.choice(FIELDS)}":{inner * depth}'.encode(), "application/json"


def _picture(draw: random.Random, picture: bytes) -> tuple[bytes, str]:
    damaged = bytearray(picture)
    for _ in range(draw.randint(1, 20)):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    data = draw.choice(
        [
            picture[: draw.randrange(len(picture))],
            bytes(damaged),
            png(19_000, 18_000),
            png(1, 1),
            png(0, 5),
            b"GIF89a",
        ]
    )
    return json.dumps(_good(data)).encode(), "application/json"


def _multipart(draw: random.Random, picture: bytes) -> tuple[bytes, str]:
    parts = draw.choices(
        [
            b'Content-Disposition: form-data; name="request"\r\n\r\n{"text": "a"}',
            b'Content-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
            + picture,
            b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture[:100],
            b"Content-Disposition: form-data\r\n\r\nx",
            b'Content-Disposition: form-data; name="\xff"\r\n\r\nx',
            b"X" * 3000,
        ],
        k=draw.randint(0, 4),
    )
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + draw.choice([b"--b--\r\n", b"--b", b""])
    kinds = [
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "x" * 200,
    ]
    return body, draw.choice(kinds + kinds[:1] * 4)


def _noise(draw: random.Random, picture: bytes) -> tuple[bytes, str]:
    kind = draw.choice(["application/json", "multipart/form-data; boundary=b", "text/plain", ""])
    return draw.randbytes(draw.randint(0, 2000)), kind
