"""Requests with an Idempotency-Key: sent again, they are answered again and done once."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256

from starlette.responses import Response

from diptych.serve.problems import Problem

MOST = 10_000  # keys that are remembered
LONGEST = 255  # characters of a key


class Repeats:
    """Answers by the name of the caller and the key; of bodies, only checksums are kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[bytes, Response | None]] = OrderedDict()

    async def once(
        self, name: str, key: str | None, body: bytes, work: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Do the work unless it was done; without a key, always.

        Args:
            name: what tells the requests of callers and addresses apart.

        Raises:
            Problem: the key came with another body, or its first request is not answered yet.
        """
        if not key:
            return await work()
        name, checksum = f"{name} {key[:LONGEST]}", sha256(body).digest()
        if name in self._known:
            before, response = self._known[name]
            if before != checksum:
                detail = "this Idempotency-Key was sent with another body; send another key."
                raise Problem("invalid-request", detail)
            if response is None:
                raise Problem("conflict", "the request with this key is not answered yet.", retry_after=1)
            # A copy: the answer to each request gets headers of its own.
            again = Response(response.body, response.status_code, media_type=response.media_type)
            if "location" in response.headers:
                again.headers["Location"] = response.headers["location"]
            return again
        self._known[name] = checksum, None
        try:
            response = await work()
        except BaseException:
            # What was refused may be tried again.
            del self._known[name]
            raise
        self._known[name] = checksum, response
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return response
