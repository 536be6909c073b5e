"""Reads requests: bodies within their limits, JSON and multipart, and errors with JSON pointers."""

import asyncio
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import inspect
from starlette.requests import ClientDisconnect, Request

from diptych.serve.limits import Limits
from diptych.serve.multipart import read_parts
from diptych.serve.problems import Problem
from diptych.serve.structs import ScoreRequest

T = TypeVar("T")
STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
UNKNOWN = re.compile(r"unknown field `(?P<name>.*?)`", re.DOTALL)
FORM = "application/x-www-form-urlencoded"
PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif", "application/octet-stream")


async def read_body(request: Request, limits: Limits, *, most: int) -> bytes:
    """Read a body, counting its bytes; what the client says about its length is not believed.

    Args:
        most: bytes.

    Raises:
        Problem: `too-large`, or `deadline` if it comes too slowly.
        ClientDisconnect: the client is gone.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.receive):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Problem("too-large", f"the body has more than {most} bytes.")
    except TimeoutError as error:
        raise Problem("deadline", f"the body did not arrive within {limits.receive:g} seconds.") from error
    return bytes(body)


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def wrong_type(kind: str, expected: str) -> Problem:
    """The problem of a body of another type."""
    # What curl says of -d, whatever the body is.
    hint = f" With curl, add: -H 'Content-Type: {expected.partition(' ')[0]}'." if kind == FORM else ""
    return Problem("unsupported-media", f"the body has the type {kind[:80]}; expected {expected}.{hint}")


def parse(body: bytes, shape: type[T]) -> T:
    """Decode JSON into a structure.

    Raises:
        Problem: `not-json`, or `invalid-request` with a pointer to the value at fault.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        text, pointer = described(str(error), shape)
        raise Problem("invalid-request", text, pointer=pointer) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        # The words of the parser quote nothing of the body.
        said = str(error) if isinstance(error, msgspec.DecodeError) else "nested too deeply, or no UTF-8"
        raise Problem("not-json", f"the body is not JSON: {said[:200]}.") from error


def described(error: str, shape: type) -> tuple[str, str]:
    """Split an error such as ``Expected `str` - at `$.items[0].text` `` into its words and a JSON pointer.

    Args:
        shape: of the body; the words list the fields of an object that has an unknown one.
    """
    text, _, path = error.partition(" - at `")
    steps = [name or number for name, number in STEP.findall(path.rstrip("`"))]
    # The value of a mapping is called `[...]`; its key is not told.
    pointer = "".join(f"/{_escaped(step)}" for step in steps if step != "...")
    if unknown := UNKNOWN.search(text):
        pointer += f"/{_escaped(unknown['name'])}"
        known = ", ".join(_fields(inspect.type_info(shape), steps))
        return f"{text[:300]}; its fields are {known}.", pointer[:300]
    return f"{text[:300]}.", pointer[:300]


def _fields(shape: inspect.Type | None, steps: Sequence[str]) -> list[str]:
    """Names of the fields of the object at some steps below a type."""
    options = shape.types if isinstance(shape, inspect.UnionType) else [shape]
    known = (inspect.StructType, inspect.ListType)
    found = next((one for one in options if isinstance(one, known)), None)
    if isinstance(found, inspect.ListType):
        return _fields(found.item_type, steps[1:])
    if found is None:
        return []
    if not steps:
        return [one.encode_name for one in found.fields]
    return _fields(next((one.type for one in found.fields if one.encode_name == steps[0]), None), steps[1:])


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def parse_form(content_type: str, body: bytes) -> tuple[ScoreRequest, bytes | None]:
    """Read the parts `request` (JSON) and `image` (the encoded picture) of a multipart body.

    Raises:
        Problem: a part is missing, unknown, given twice or of another type.
    """
    found: dict[str, bytes] = {}
    for part in read_parts(content_type, body):
        if part.name not in ("request", "image") or part.name in found:
            detail = "the part is unknown or given twice; expected `request` and `image`"
            raise Problem("invalid-request", f"{detail}.", pointer=f"/{_escaped(part.name[:80])}")
        if part.name == "image" and (part.kind or PICTURES[-1]) not in PICTURES:
            detail = f"the image has the type {part.kind[:80]}; expected one of {', '.join(PICTURES)}."
            raise Problem("unsupported-media", detail)
        # A picture that is sent as a text has lost bytes.
        if part.name == "image" and not part.file:
            raise Problem("invalid-request", "the image is a text; send a file.", pointer="/image")
        found[part.name] = bytes(part.data)
    request = parse(found.get("request", b"{}"), ScoreRequest)
    image = found.get("image")
    if image is not None and request.image is not None:
        raise Problem(
            "invalid-request", "the image is given twice, as a part and in the JSON.", pointer="/image"
        )
    return request, image


async def gone(request: Request) -> None:
    """Return when the client is gone; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, work: "asyncio.Task[T]") -> T:
    """The result of a task, which is canceled if the client goes away.

    Raises:
        ClientDisconnect: it went away.
    """
    watch = asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            raise ClientDisconnect
        return await work
    finally:
        watch.cancel()
        if not work.done():
            work.cancel()
