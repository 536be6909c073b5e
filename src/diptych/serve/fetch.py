"""Pictures by address: off unless hosts are named, and then only from public addresses of these hosts.

The name is resolved once, every address is checked, and the connection goes to a checked one. A name server
that first says a public address and then one of this network therefore gains nothing.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import Timer
from urllib.parse import SplitResult, urlsplit

from diptych.errors import ConfigError
from diptych.serve.problems import Problem

POINTER = "/image/url"
PORTS = {"https": 443, "http": 80}
# Public by `is_global`, but special: protocol assignments, the old 6to4 relays, shared carrier addresses.
SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "100.64.0.0/10")))
NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
CHUNK = 1 << 16
HOST = re.compile(r"(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*")
Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet, and whatever it wraps, too."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inside: list[IPv4Address | IPv6Address] = [address]
    if isinstance(address, IPv6Address):
        # Addresses of version 6 can carry one of version 4, to which a router would send.
        wrapped = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
        inside += [one for one in wrapped if one is not None]
        if any(address in network for network in NAT64):
            inside.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return all(_plain_public(one) for one in inside)


def _plain_public(address: IPv4Address | IPv6Address) -> bool:
    special = any(address in network for network in SPECIAL if network.version == address.version)
    return address.is_global and not address.is_multicast and not special


def checked_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """Names of hosts in lower case.

    Raises:
        ConfigError: one is no name; `*` is allowed as the first label only.
    """
    for host in hosts:
        if HOST.fullmatch(host.lower()) is None or host in ("*", "*."):
            raise ConfigError(f"--fetch-from {host}: expected a name such as example.org or *.example.org.")
    return tuple(host.lower() for host in hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Fetches pictures from named hosts.

    Args:
        hosts: exact names, or `*.example.org` for all names below one.
        plain: also fetch over http.
        most: bytes of a picture.
        connect: seconds to connect, and between two parts of the answer.
        total: seconds of everything.
        resolve: resolver of names; another one for tests.
        public: whether an address may be connected to; another rule for tests on this machine.
        ports: the ports of each scheme.
    """

    hosts: tuple[str, ...]
    plain: bool = False
    most: int = 10_000_000
    connect: float = 5.0
    total: float = 10.0
    resolve: Resolve = resolve
    public: Callable[[str], bool] = is_public
    ports: dict[str, int] = field(default_factory=lambda: dict(PORTS))

    def __call__(self, url: str) -> bytes:
        """Return the bytes of a picture.

        Raises:
            Problem: `fetch-refused`, always with the same words: a stranger learns nothing of this network.
        """
        try:
            parts, host, port = self._target(url)
            addresses = list(self.resolve(host, port))
            # Every one, not only the one that is used: a mix is a trick.
            if not addresses or not all(map(self.public, addresses)):
                raise ValueError("an address is not public")
            return self._read(parts, host, port, addresses[0])
        except (ValueError, OSError, HTTPException) as error:
            raise refused() from error

    def _target(self, url: str) -> tuple[SplitResult, str, int]:
        if re.search(r"[\x00-\x20\x7f\\]", url):
            raise ValueError("characters that no address has")
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        if scheme != "https" and not (scheme == "http" and self.plain):
            raise ValueError("the scheme")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials")
        # `encode("idna")` turns look-alikes such as full-width digits into what a resolver would see.
        host = (parts.hostname or "").rstrip(".").encode("idna").decode("ascii").lower()
        allowed = any(host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in self.hosts)
        if not allowed:
            raise ValueError("the host is not named")
        port = parts.port or self.ports[scheme]
        if port != self.ports[scheme]:
            raise ValueError("the port")
        return parts, host, port

    def _read(self, parts: SplitResult, host: str, port: int, address: str) -> bytes:
        end = time.monotonic() + self.total
        raw = socket.create_connection((address, port), timeout=self.connect)
        # A server that sends a byte now and then would pass every timeout between two parts.
        timer = Timer(self.total, _cut, (raw,))
        timer.daemon = True
        timer.start()
        connection = HTTPConnection(host, port)
        try:
            # The name in TLS and in `Host`, the checked address below.
            secure = parts.scheme.lower() == "https"
            connection.sock = (
                ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
            )
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
            with closing(connection.getresponse()) as answer:
                # A redirect is another address, so it is refused like any other status.
                if answer.status != 200 or not answer.headers.get_content_type().startswith("image/"):
                    raise ValueError("no picture")
                data = bytearray()
                while chunk := answer.read(CHUNK):
                    data += chunk
                    if len(data) > self.most or time.monotonic() > end:
                        raise ValueError("too large or too slow")
                return bytes(data)
        finally:
            timer.cancel()
            connection.close()
            raw.close()


def _cut(raw: socket.socket) -> None:
    try:
        raw.shutdown(socket.SHUT_RDWR)
    except OSError:  # closed by now
        return


def refused() -> Problem:
    """The one answer to everything that is not fetched."""
    return Problem(
        "fetch-refused",
        "the picture was not fetched. Send its bytes, or ask the operator which hosts are allowed.",
        pointer=POINTER,
    )
