"""Pictures by address: what is public, what is not, and that a name is resolved once."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from diptych.errors import ConfigError
from diptych.serve import Problem
from diptych.serve.fetch import Fetcher, checked_hosts, is_public

PRIVATE = (
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "198.18.0.1", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "192.0.0.8", "192.88.99.1", "192.0.2.1",
    "203.0.113.5", "::1", "::", "fd00::1", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "2002:7f00:1::", "2002:0a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2001:db8::1",
    "2001:0:7f00:1:0:0:f5ff:fffe", "not an address", "", "2130706433", "0x7f000001", "0177.0.0.1", "127.1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_this_network_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {
            "/ok": (200, "image/png", b"picture"),
            "/page": (200, "text/html", b"<html>"),
            "/moved": (302, "image/png", b""),
            "/large": (200, "image/png", b"x" * 5000),
            "/error": (500, "image/png", b"secret"),
        }
        status, kind, body = answers[self.path.partition("?")[0]]
        self.server.hosts.append(self.headers["Host"])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Location", "http://127.0.0.1/ok")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        return


@contextmanager
def pictures():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hosts = []
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def server():
    with pictures() as running:
        yield running


def fetcher(server, **options):
    usual = {
        "hosts": ("pictures.test", "*.wide.test"),
        "plain": True,
        "most": 1000,
        "resolve": lambda host, port: ["127.0.0.1"],
        "public": lambda address: True,
        "ports": {"http": server.server_port, "https": 443},
        "connect": 2.0,
    }
    return Fetcher(**usual | options)


def test_a_picture_comes_from_the_checked_address_under_its_name(server):
    fetch = fetcher(server)
    assert fetch("http://pictures.test/ok?a=b") == b"picture"
    assert fetch("http://PICTURES.test./ok") == b"picture"
    assert fetch("http://a.wide.test/ok") == b"picture"
    assert server.hosts[0] == f"pictures.test:{server.server_port}"


@pytest.mark.parametrize("path", ["/page", "/moved", "/large", "/error"])
def test_what_is_no_picture_is_refused_in_the_same_words(server, path):
    with pytest.raises(Problem) as caught:
        fetcher(server)(f"http://pictures.test{path}")
    with pytest.raises(Problem) as other:
        fetcher(server)("http://else.test/")
    assert caught.value.kind == other.value.kind == "fetch-refused"
    assert caught.value.detail == other.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "https://else.test/ok", "https://pictures.test.evil.test/ok", "https://wide.test/ok", "ftp://pictures.test/ok",
        "https://user@pictures.test/ok", "https://user:secret@pictures.test/ok", "https://pictures.test:22/ok",
        "https://127.0.0.1/ok", "https://2130706433/", "https://0x7f.1/", "https://[::1]/", "https://pictures.test\\@x/",
        "https://pictures.test/\r\nHost: x", "file:///etc/passwd", "//pictures.test/ok", "https://", "https://pictures.test:99999/",
        "https://\uff11\uff12\uff17.0.0.1/", "gopher://pictures.test/", "https://pictures\u3002test.evil/", "https://[bad/",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_before_they_are_resolved(server, url):
    asked = []
    fetch = fetcher(server, resolve=lambda host, port: asked.append(host) or ["127.0.0.1"])
    with pytest.raises(Problem) as caught:
        fetch(url)
    assert caught.value.kind == "fetch-refused"
    assert asked == []


def test_http_needs_its_option(server):
    with pytest.raises(Problem):
        fetcher(server, plain=False)("http://pictures.test/ok")


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], []])
def test_every_address_of_a_name_must_be_public(server, found):
    before = len(server.hosts)
    with pytest.raises(Problem):
        fetcher(server, public=is_public, resolve=lambda host, port: found)("http://pictures.test/ok")
    assert len(server.hosts) == before


def test_a_name_that_changes_its_address_gains_nothing(server, monkeypatch):
    """The first answer is public, the second is this machine: only the first is ever used."""
    answers, dialed = iter([["93.184.216.34"], ["127.0.0.1"]]), []

    def dial(address, timeout):
        dialed.append(address[0])
        raise OSError("no way to the internet in tests")

    monkeypatch.setattr("diptych.serve.fetch.socket.create_connection", dial)
    with pytest.raises(Problem):
        fetcher(server, public=is_public, resolve=lambda host, port: next(answers))("http://pictures.test/ok")
    assert dialed == ["93.184.216.34"]


@pytest.mark.parametrize("host", ["*", "http://a.test", "a test", "*.*.test", "a.test/", ""])
def test_hosts_are_names(host):
    with pytest.raises(ConfigError):
        checked_hosts([host])
    assert checked_hosts(["Example.org", "*.example.org"]) == ("example.org", "*.example.org")
