"""Keys of the service: who may ask, as which role, and how often."""

import hmac
import os
import re
import stat
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

from diptych.errors import FormatError
from diptych.files import require_file

ROLES = ("user", "reviewer", "admin")  # each may do what those before it may
LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}):(?P<sum>[0-9a-fA-F]{64}):(?P<role>\w+)")
MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. A service without keys takes everybody on its own machine for an administrator."""

    name: str
    role: str


EVERYBODY = Caller("everybody", "admin")


def read_keys(path: Path) -> dict[str, tuple[bytes, str]]:
    """Read `name:sha256-of-key:role` lines; empty lines and those with `#` are left out.

    Warns if others than the owner may read or write the file.

    Returns:
        Checksum and role by name.

    Raises:
        FormatError: a line is no key, a name occurs twice, or there is none.
    """
    require_file(path, "a file of keys")
    status = path.stat()
    if status.st_size > MOST:
        raise FormatError(f"{path} has {status.st_size} bytes; expected at most {MOST}.")
    if open_to := stat.S_IMODE(status.st_mode) & 0o077:
        warnings.warn(
            f"{path} is open to others than its owner (mode {open_to:#o} beyond); run: chmod 600 {path}",
            stacklevel=2,
        )
    keys: dict[str, tuple[bytes, str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LINE.fullmatch(line.strip())
        # The line is not quoted: it may hold a key in clear.
        if found is None or found["role"] not in ROLES:
            raise FormatError(
                f"{path}:{number}: expected name:sha256-of-the-key:role with one of the roles "
                f"{', '.join(ROLES)}. Make the checksum: printf %s KEY | sha256sum"
            )
        if found["name"] in keys:
            raise FormatError(f"{path}:{number}: the name {found['name']!r} occurs a second time.")
        keys[found["name"]] = bytes.fromhex(found["sum"]), found["role"]
    if not keys:
        raise FormatError(f"{path} has no key; expected a line name:sha256-of-the-key:role.")
    return keys


class Keys:
    """The keys of a file, which `reload` reads again; or none, and then everybody may ask.

    Args:
        rate: requests per second and key; 0 is without limit.
        burst: requests of a key at once.
    """

    def __init__(self, path: Path | None = None, *, rate: float = 0.0, burst: int = 100) -> None:
        self.path, self.rate, self.burst = path, rate, burst
        self._keys: Mapping[str, tuple[bytes, str]] | None = None if path is None else read_keys(path)
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def reload(self) -> None:
        """Read the file again; the old keys stay if it is damaged.

        Raises:
            FormatError: it is damaged.
        """
        if self.path is not None:
            self._keys = read_keys(self.path)

    def caller(self, given: str | None) -> Caller | None:
        """Who has this key; None if it is unknown."""
        if self._keys is None:
            return EVERYBODY
        if given is None:
            return None
        checksum = sha256(given.encode("utf-8", "surrogatepass")).digest()
        caller = None
        # All keys are compared, each in constant time, so that the time tells nothing.
        for name, (known, role) in self._keys.items():
            if hmac.compare_digest(known, checksum):
                caller = Caller(name, role)
        return caller

    def wait(self, caller: Caller) -> float:
        """Take a request from the caller's bucket; seconds until there is one, 0 if it was taken."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        with self._lock:
            tokens, then = self._buckets.get(caller.name, (float(self.burst), now))
            tokens = min(float(self.burst), tokens + (now - then) * self.rate)
            taken = tokens >= 1
            self._buckets[caller.name] = tokens - taken, now
        return 0.0 if taken else (1 - tokens) / self.rate


def may_bind(host: str, *, keys: bool, open_to_all: bool) -> bool:
    """Whether the service may listen there: beyond its own machine only with keys, or if told so."""
    return keys or open_to_all or host in ("localhost", "::1") or host.startswith("127.")


def new_request_id() -> str:
    """An id that sorts by time, as UUIDs of version 7 do."""
    stamp = int(time.time() * 1000).to_bytes(6, "big")
    rest = bytearray(os.urandom(10))
    rest[0] = 0x70 | rest[0] & 0x0F  # version
    rest[2] = 0x80 | rest[2] & 0x3F  # variant
    text = (stamp + bytes(rest)).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
