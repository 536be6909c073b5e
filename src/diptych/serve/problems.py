"""Problems: the errors that the service answers with (RFC 9457), each of a type that clients can rely on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

BASE = "/problems/"
"""Types are relative to the address of the service, which describes them in `/openapi.json`."""


class Kind(NamedTuple):
    """Status code and title of a type of problem."""

    status: int
    title: str


KINDS = {
    "not-json": Kind(400, "The body is not JSON."),
    "unauthorized": Kind(401, "A key is missing or unknown."),
    "forbidden": Kind(403, "The key may not do this."),
    "not-found": Kind(404, "There is nothing at this address."),
    "unknown-model": Kind(404, "There is no model of this name."),
    "method-not-allowed": Kind(405, "The address does not know this method."),
    "conflict": Kind(409, "The service is not in a state for this."),
    "too-large": Kind(413, "The body is too large."),
    "unsupported-media": Kind(415, "The body is of another type."),
    "invalid-request": Kind(422, "A value of the request is invalid."),
    "bad-picture": Kind(422, "The picture cannot be read."),
    "picture-too-big": Kind(422, "The picture is too big."),
    "no-text": Kind(422, "There is no text."),
    "fetch-refused": Kind(422, "The address is not fetched."),
    "rate-limited": Kind(429, "The key sends too many requests."),
    "overloaded": Kind(429, "The queue is full."),
    "internal": Kind(500, "The service failed."),
    "draining": Kind(503, "The service is stopping."),
    "deadline": Kind(504, "There was no answer in time."),
}


class Problem(Exception):
    """A request that gets no answer, and why.

    Args:
        kind: a key of `KINDS`.
        detail: what was found, what was expected, and what to do.
        pointer: JSON pointer to the value at fault.
        retry_after: seconds after which the same request may succeed.
        errors: further values at fault, as pairs of pointer and detail.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        pointer: str | None = None,
        retry_after: int | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.retry_after = kind, detail, retry_after
        self.errors = (*(() if pointer is None else ((pointer, detail),)), *errors)

    @property
    def status(self) -> int:
        return KINDS[self.kind].status

    def within(self, pointer: str) -> "Problem":
        """The same problem with a value at `pointer`, for one item of several."""
        moved = [(f"{pointer}{own}", detail) for own, detail in self.errors]
        return Problem(self.kind, self.detail, retry_after=self.retry_after, errors=moved)

    def as_dict(self, request_id: str) -> dict[str, Any]:
        """The body of the answer."""
        errors = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors]
        return {
            "type": f"{BASE}{self.kind}",
            "title": KINDS[self.kind].title,
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:request:{request_id}",
            **({"errors": errors} if errors else {}),
        }
