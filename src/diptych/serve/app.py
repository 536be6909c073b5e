"""The service over HTTP: addresses, keys, problems, and what is counted and logged of every request."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from diptych.errors import report_internal
from diptych.serve.intake import read_body, while_connected
from diptych.serve.jobs import Jobs
from diptych.serve.keys import EVERYBODY, ROLES, Caller, Keys, new_request_id
from diptych.serve.problems import Problem
from diptych.serve.repeats import Repeats
from diptych.serve.service import Service

JSON, PROBLEM = "application/json", "application/problem+json"
GONE = 499  # nginx's code for a client that went away; only the log sees it
ELSEWHERE = ("cross-site", "same-site")  # what browsers say of a page of another address
PAGE = Path(__file__).parent / "page"
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(kw_only=True)
class Call:
    """A request on its way.

    Args:
        notes: what the log says of it, besides path, code and time.
    """

    request: Request
    id: str
    caller: Caller = EVERYBODY
    body: bytes = b""
    notes: dict[str, Any] = field(default_factory=dict)

    async def work(self, task: Awaitable[Any]) -> Any:
        """Await something that is given up if the client goes away."""
        return await while_connected(self.request, asyncio.ensure_future(task))


Handler = Callable[["Web", Call], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address of the service, from which its route and its entry in `/openapi.json` are made.

    Args:
        role: that a key must have, or a higher one; None needs no key.
        reads: structure of the body; None for no body.
        answers: structure of the answer; a media type where it is no JSON.
        queues: whether it is refused as a whole while the queue is full.
        code: of the answer.
        most: the limit of its body, by name.
        lines: whether `reads`, or without it `answers`, is of each line.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    role: str | None = "user"
    reads: type | None = None
    answers: type | str = ""
    queues: bool = False
    code: int = 200
    most: str = "body"
    lines: bool = False


class Web:
    """The service as an ASGI application.

    Args:
        addresses: see `diptych.serve.addresses`.
        log: where a line of JSON is written per request; None writes nothing.
    """

    def __init__(
        self,
        service: Service,
        addresses: tuple[Address, ...],
        *,
        keys: Keys | None = None,
        log: Callable[[str], object] | None = sys.stderr.write,
        reload: Callable[[str], Any] | None = None,
    ) -> None:
        self.service, self.addresses, self.keys, self.log = service, addresses, keys or Keys(), log
        self.load_again = reload
        self.reloading: set[str] = set()
        self.repeats, self.jobs = Repeats(), Jobs(service, log=log)
        self.app = Starlette(
            routes=[
                Route(path, _Endpoint(self, own), methods=[*own]) for path, own in _by_path(addresses).items()
            ],
            exception_handlers={404: self._not_found, 405: self._not_found},
        )

    async def answer(self, address: Address, request: Request) -> Response:
        """Answer a request, count and log it."""
        start = time.monotonic()
        call = Call(request=request, id=_request_id(request.headers))
        try:
            response = await self._checked(address, call)
        except Problem as problem:
            response = problem_response(problem, call.id)
            call.notes["problem"] = problem.kind
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except Exception as error:
            # Nothing of a traceback goes to the client; the line of the log says where it is.
            call.notes["error"] = report_internal(error)
            response = problem_response(
                Problem("internal", "the service failed; its log has the reason."), call.id
            )
        seconds = time.monotonic() - start
        response.headers["X-Request-Id"] = call.id
        for name, value in SAFE.items():
            response.headers.setdefault(name, value)
        self.service.metrics.requests.labels(address.path, str(response.status_code)).inc()
        self.service.metrics.request_seconds.labels(address.path).observe(seconds)
        self._write(call, response.status_code, seconds)
        return response

    async def _checked(self, address: Address, call: Call) -> Response:
        # Without keys, a page of a stranger in a browser of this machine could teach, reload and delete.
        if address.method != "GET" and call.request.headers.get("sec-fetch-site") in ELSEWHERE:
            raise Problem("forbidden", "a page of another site asks; this service answers its own page only.")
        if address.role is not None:
            call.caller = self._caller(call.request, address.role)
        limits = self.service.limits
        size = sum(len(name) + len(value) for name, value in call.request.headers.raw)
        if size > limits.header:
            raise Problem("too-large", f"the headers have {size} bytes; expected at most {limits.header}.")
        if address.queues:
            self.service.require_room()
        if address.method == "POST":
            call.body = await read_body(call.request, limits, most=getattr(limits, address.most))
            call.notes["bytes"] = len(call.body)
        return await address.handler(self, call)

    def _caller(self, request: Request, role: str) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" and token else request.headers.get("x-api-key")
        caller = self.keys.caller(given)
        if caller is None:
            raise Problem("unauthorized", "send a key: Authorization: Bearer KEY.")
        if ROLES.index(caller.role) < ROLES.index(role):
            raise Problem("forbidden", f"the key {caller.name} has the role {caller.role}; expected {role}.")
        if wait := self.keys.wait(caller):
            detail = f"the key {caller.name} may send {self.keys.rate:g} requests per second."
            raise Problem("rate-limited", detail, retry_after=max(1, round(wait)))
        return caller

    def _write(self, call: Call, code: int, seconds: float) -> None:
        if self.log is None:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": call.id,
            "trace": call.request.headers.get("traceparent", "")[:64] or None,
            "key": call.caller.name,
            "method": call.request.method,
            # Without the query, in which some clients put secrets.
            "path": call.request.url.path[:200],
            "code": code,
            "milliseconds": round(1000 * seconds, 3),
            **call.notes,
        }
        self.log(msgspec.json.encode(line).decode() + "\n")

    async def _not_found(self, request: Request, error: Exception) -> Response:
        kind = "method-not-allowed" if getattr(error, "status_code", 404) == 405 else "not-found"
        known = "see /openapi.json for what there is."
        problem = Problem(kind, f"{request.method} {request.url.path[:200]}: {known}")
        response = problem_response(problem, _request_id(request.headers))
        response.headers.update(dict(getattr(error, "headers", None) or {}))
        self.service.metrics.requests.labels("other", str(problem.status)).inc()
        return response


class _Endpoint:
    """An ASGI endpoint for the methods of one path."""

    def __init__(self, web: Web, own: Mapping[str, Address]) -> None:
        self.web, self.own = web, own

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        method = "GET" if request.method == "HEAD" else request.method
        response = await self.web.answer(self.own[method], request)
        if response.status_code != GONE:
            await response(scope, receive, send)


def _by_path(addresses: tuple[Address, ...]) -> dict[str, dict[str, Address]]:
    paths: dict[str, dict[str, Address]] = {}
    for address in addresses:
        paths.setdefault(address.path, {})[address.method] = address
    return paths


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    plain = 0 < len(given) <= 64 and given.isascii() and all(one.isalnum() or one in "._-" for one in given)
    return given if plain else new_request_id()


def json_response(value: Any, status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(msgspec.json.encode(value), status, media_type=JSON)


def problem_response(problem: Problem, request_id: str) -> Response:
    """A problem as the standard has it, with the headers that belong to it."""
    body = msgspec.json.encode(problem.as_dict(request_id))
    response = Response(body, problem.status, media_type=PROBLEM, headers={"X-Request-Id": request_id})
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    if problem.kind == "unauthorized":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
