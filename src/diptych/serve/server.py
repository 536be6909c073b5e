"""Runs the service: listens, stops without losing an accepted request, and reads keys again on SIGHUP."""

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any, Literal

import uvicorn

from diptych.errors import ConfigError, DiptychError
from diptych.serve.app import Web


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Open the port, before any model is loaded.

    Args:
        option: that names it in errors.

    Raises:
        ConfigError: the port is taken, or the address is not one of this machine.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"{option} is {port}; expected 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"{host} with {option} {port}: {error}; expected an address of this machine."
        ) from error
    try:
        # A port that an ended service used a minute ago is free.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        taken = (
            "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error}"
        )
        raise ConfigError(f"port {port} of {host} {taken}; choose another one with {option}.") from error
    return found


class Server(uvicorn.Server):
    """Uvicorn that first tells balancers to go elsewhere, then stops listening, then finishes what it has.

    Args:
        drain: called with the first signal.
        wait: seconds between the first signal and the end of listening.
    """

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], None], wait: float) -> None:
        super().__init__(config)
        self.drain, self.wait = drain, wait
        self._signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends the wait, the third does not wait for answers."""
        # Not remembered: uvicorn would send itself the signal at the end, and the exit code would not be 0.
        self._signals += 1
        if self._signals == 1 and self.wait > 0:
            self.drain()
            loop = asyncio.get_event_loop()
            loop.call_soon_threadsafe(loop.call_later, self.wait, self._leave)
        else:
            self.drain()
            self.force_exit = self._signals > 2
            self._leave()

    def _leave(self) -> None:
        self.should_exit = True


def run(
    web: Web,
    sock: socket.socket,
    *,
    monitor: tuple[Web, socket.socket] | None = None,
    drain_wait: float = 5.0,
    graceful: int = 30,
    backlog: int = 2048,
) -> int:
    """Serve until a signal; returns 0 if all accepted requests were answered.

    Args:
        monitor: what Prometheus reads, on a port of its own.
        drain_wait: seconds in which `/readyz` says no and requests are still taken.
        graceful: seconds for what was accepted.
    """
    state = {"finished": True}

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        async with _beside(monitor):
            yield
        await web.jobs.close()
        # In another thread: the loop still sends answers while the queue empties.
        state["finished"] = await asyncio.to_thread(web.service.close, float(graceful))

    web.app.router.lifespan_context = lifespan
    config = _config(web, lifespan="on", graceful=graceful, backlog=backlog)
    server = Server(config, drain=lambda: _drain(web), wait=drain_wait)
    with suppress(ValueError, AttributeError):  # not the main thread, or no such signal here
        signal.signal(signal.SIGHUP, lambda *_: _read_keys(web))
    server.run(sockets=[sock])
    return 0 if state["finished"] else 1


def _config(
    web: Web, *, lifespan: Literal["on", "off"], graceful: int, backlog: int = 2048
) -> uvicorn.Config:
    limits = web.service.limits
    return uvicorn.Config(
        web.app,
        # Its limit of headers is the only one that can be set.
        http="h11",
        ws="none",
        lifespan=lifespan,
        h11_max_incomplete_event_size=limits.header,
        timeout_keep_alive=limits.keep_alive,
        timeout_graceful_shutdown=graceful,
        backlog=backlog,
        # A line of JSON per request is ours.
        access_log=False,
        log_level="error",
        server_header=False,
    )


@asynccontextmanager
async def _beside(monitor: tuple[Web, socket.socket] | None) -> AsyncIterator[None]:
    """Serve the addresses of `--metrics-port` in the same loop, to the end of the last request."""
    if monitor is None:
        yield
        return
    web, sock = monitor
    config = _config(web, lifespan="off", graceful=1)
    server = _Beside(config)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Beside(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the main server."""
        yield


def _drain(web: Web) -> None:
    # Only said at first: requests of those who have not looked at `/readyz` yet are still taken.
    web.service.leaving = True


def _read_keys(web: Web) -> None:
    try:
        web.keys.reload()
    except (DiptychError, OSError) as error:
        print(f"diptych: warning: the old keys stay: {error}", file=sys.stderr)


def address_of(sock: socket.socket) -> str:
    """Where the service is, for people."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
