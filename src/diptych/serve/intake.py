"""Reads requests: bodies within their limits, JSON and multipart, and errors with JSON pointers."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from diptych.serve.limits import Limits
from diptych.serve.problems import Problem
from diptych.serve.structs import ScoreRequest

T = TypeVar("T")
STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
UNKNOWN = re.compile(r"unknown field `(?P<name>.*?)`", re.DOTALL)
PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif", "application/octet-stream")


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body, counting its bytes; what the client says about its length is not believed.

    Raises:
        Problem: `too-large`, or `deadline` if it comes too slowly.
        ClientDisconnect: the client is gone.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.receive):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise Problem("too-large", f"the body has more than {limits.body} bytes.")
    except TimeoutError as error:
        raise Problem("deadline", f"the body did not arrive within {limits.receive:g} seconds.") from error
    return bytes(body)


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse(body: bytes, shape: type[T]) -> T:
    """Decode JSON into a structure.

    Raises:
        Problem: `not-json`, or `invalid-request` with a pointer to the value at fault.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        text, pointer = described(str(error))
        raise Problem("invalid-request", text, pointer=pointer) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        # The words of the parser quote nothing of the body.
        said = str(error) if isinstance(error, msgspec.DecodeError) else "nested too deeply, or no UTF-8"
        raise Problem("not-json", f"the body is not JSON: {said[:200]}.") from error


def described(error: str) -> tuple[str, str]:
    """Split an error such as ``Expected `str` - at `$.items[0].text` `` into its words and a JSON pointer."""
    text, _, path = error.partition(" - at `")
    steps = [name or number for name, number in STEP.findall(path.rstrip("`"))]
    # The value of a mapping is called `[...]`; its key is not told.
    pointer = "".join(f"/{_escaped(step)}" for step in steps if step != "...")
    if unknown := UNKNOWN.search(text):
        pointer += f"/{_escaped(unknown['name'])}"
    return f"{text[:300]}.", pointer[:300]


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


async def parse_form(headers: Headers, body: bytes, limits: Limits) -> tuple[ScoreRequest, bytes | None]:
    """Read the parts `request` (JSON) and `image` (the encoded picture) of a multipart body.

    Raises:
        Problem: a part is missing, unknown, given twice or of another type.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        # In pieces: the parser copies what it is given.
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    parser = MultiPartParser(headers, stream(), max_files=2, max_fields=2, max_part_size=limits.body)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError, IndexError) as error:
        raise Problem("invalid-request", "the multipart body is damaged.") from error
    try:
        return await _parts(form.multi_items())
    finally:
        await form.close()


async def _parts(items: list[tuple[str, UploadFile | str]]) -> tuple[ScoreRequest, bytes | None]:
    found: dict[str, bytes] = {}
    for name, value in items:
        if name not in ("request", "image") or name in found:
            detail = "the part is unknown or given twice; expected `request` and `image`"
            raise Problem("invalid-request", f"{detail}.", pointer=f"/{_escaped(name[:80])}")
        if isinstance(value, UploadFile):
            kind = (value.content_type or PICTURES[-1]).partition(";")[0].strip().lower()
            if name == "image" and kind not in PICTURES:
                raise Problem(
                    "unsupported-media", f"the image has the type {kind[:80]}; expected {PICTURES}."
                )
            found[name] = await value.read()
        else:
            # A text part; a picture sent as one would have lost bytes.
            if name == "image":
                raise Problem("invalid-request", "the image is a text; send a file.", pointer="/image")
            found[name] = value.encode("utf-8", "surrogatepass")
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
