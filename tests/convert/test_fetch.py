"""Downloads from a server of our own: what breaks off continues, what is wrong is not kept."""

import functools
import hashlib
import io
import json
import re
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from diptych.convert import checkpoints, download, fetch, find, read_weights
from diptych.errors import ConfigError, FormatError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Knows ranges and tags; `breaks` answers end in the middle, `moved` sends elsewhere."""

    breaks = 0
    ranges = True
    tag = '"one"'
    asked: list[str]

    def do_GET(self):
        kind = type(self)
        kind.asked.append(self.headers.get("Range", "all"))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/file.bin")
            self.end_headers()
            return
        if self.path.startswith("/dead"):
            self.send_error(404, "Gone away")
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if kind.ranges and wanted and self.headers.get("If-Range") == kind.tag:
            start = int(wanted[1])
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", kind.tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind.breaks:
            kind.breaks -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start a server with a handler; returns its address."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    running = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(serve):
    """A fresh kind of server, and its address."""
    handler = type("Fresh", (Server,), {"asked": []})
    return handler, serve(handler)


def test_a_file_is_downloaded_once_with_its_progress(server):
    handler, address = server
    steps = []
    path = download(f"{address}/file.bin", progress=lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path.name == "file.bin"
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert download(f"{address}/file.bin") == path
    assert handler.asked == ["all"]


def test_what_breaks_off_is_continued(server):
    handler, address = server
    handler.breaks = 2
    assert find(f"{address}/file.bin#sha256={SHA256}").read_bytes() == CONTENT
    assert handler.asked == ["all", f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]


def test_what_breaks_off_for_good_continues_with_the_next_command(server):
    handler, address = server
    handler.breaks = 3
    with pytest.raises(FormatError, match=r"file\.bin: .*\b3 .*\b896,000 bytes"):
        download(f"{address}/file.bin")
    assert download(f"{address}/file.bin").read_bytes() == CONTENT
    assert handler.asked[-1] == "bytes=896000-"


@pytest.mark.parametrize("change", [{"tag": '"two"'}, {"ranges": False}, {"tag": 'W/"weak"'}])
def test_another_file_is_never_appended(server, change):
    handler, address = server
    if change.get("tag", "").startswith("W/"):
        handler.tag = change["tag"]
    handler.breaks = 3
    with pytest.raises(FormatError, match=r"file\.bin: .*\b3 "):
        download(f"{address}/file.bin")
    for name, value in change.items():
        setattr(handler, name, value)
    assert download(f"{address}/file.bin", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expectation", "message"),
    [({"sha256": "0" * 64}, f"SHA-256 {SHA256};.* 0000"), ({"size": 5}, "bytes 1024000;.* 5")],
)
def test_another_file_than_expected_is_not_kept(server, tmp_path, expectation, message):
    _, address = server
    with pytest.raises(FormatError, match=message):
        download(f"{address}/file.bin", **expectation)
    assert not [
        path for path in (tmp_path / "cache").rglob("*.*") if path.is_file() and "etag" not in path.name
    ]
    assert download(f"{address}/file.bin", sha256=SHA256.upper()).read_bytes() == CONTENT


def test_redirects_are_followed(server):
    assert download(f"{server[1]}/moved").read_bytes() == CONTENT


def test_dead_links_say_so(server):
    with pytest.raises(ConfigError, match=r"/dead .*404 Gone away"):
        find(f"{server[1]}/dead")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1/file\.bin .*refused"):
        download("http://127.0.0.1:1/file.bin")


def test_dead_entries_of_the_list_name_others(server, monkeypatch):
    listed = {
        "old": {"family": "uniter", "source": f"{server[1]}/dead", "status": "gone since May"},
        "new": {"family": "uniter", "source": "hub:some/one", "status": "fine"},
        "drive": {"family": "bert", "source": "drive:1a", "status": "by hand, https://somewhere"},
    }
    monkeypatch.setattr(fetch, "checkpoints", lambda: listed)
    with pytest.raises(ConfigError, match=r"old: .*404.*gone since May.*: new\."):
        find("old")
    with pytest.raises(ConfigError, match=r"drive: drive:1a .*https://somewhere.*: none\."):
        find("drive")


def test_archives_are_unpacked_and_torch_files_are_not(serve, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({"a": torch.ones(2)}, folder / "w.pth")
    with tarfile.open(folder / "w.tar.gz", "w:gz") as tar:
        tar.add(folder / "w.pth", "inner/deep/model.pth")
    with zipfile.ZipFile(folder / "w.zip", "w") as archive:
        archive.write(folder / "w.pth", "model.pth")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    address = serve(functools.partial(quiet, directory=str(folder)))
    for name in ("w.pth", "w.tar.gz", "w.zip"):
        for _ in range(2):  # the second one from the cache
            assert torch.equal(read_weights(find(f"{address}/{name}"))["a"], torch.ones(2))


def test_archives_cannot_write_elsewhere(serve, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / "evil.tar", "w") as tar:
        member = tarfile.TarInfo("../../../../evil.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    address = serve(functools.partial(quiet, directory=str(folder)))
    with pytest.raises(FormatError, match=r"evil\.tar: "):
        find(f"{address}/evil.tar")
    assert not list(tmp_path.rglob("evil.txt"))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as its client asks for."""

    files: dict[str, bytes]

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, *, head):
        files, commit = type(self).files, "c" * 40
        if self.path.startswith("/api/models/some/one/tree"):
            found = [
                {"type": "file", "path": name, "oid": "0", "size": len(body)} for name, body in files.items()
            ]
            body, code = json.dumps(found).encode(), 200
        elif self.path.startswith("/api/models/some/one"):
            about = {"id": "some/one", "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            body, code = json.dumps(about).encode(), 200
        elif (found := re.fullmatch(r"/some/one/resolve/[^/]+/(.+)", self.path)) and found[1] in files:
            body, code = files[found[1]], 200
        else:
            body, code = b"", 404
        self.send_response(code)
        if code == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if "/some/one/" in self.path else "RepoNotFound")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(serve, monkeypatch):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    files = {"pytorch_model.bin": buffer.getvalue(), "config.json": b"{}", "other.h5": b"x"}
    address = serve(type("FreshHub", (Hub,), {"files": files}))
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return files


def test_a_repository_of_the_hub(hub):
    folder = find("hub:some/one")
    assert {path.name for path in folder.iterdir()} == {"pytorch_model.bin", "config.json"}
    assert torch.equal(read_weights(folder)["a"], torch.ones(3))
    assert find("hub:some/one@main/config.json").read_text() == "{}"


def test_a_hub_that_does_not_answer_is_one_error_and_what_is_there_serves(hub, monkeypatch):
    folder = find("hub:some/one")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again and again
    assert find("hub:some/one") == folder
    with pytest.raises(ConfigError, match=r"^hub:some/other "):
        find("hub:some/other")


def test_what_the_hub_does_not_have_says_so(hub):
    with pytest.raises(ConfigError, match=r"^hub:some/one/nowhere\.bin .*404"):
        find("hub:some/one/nowhere.bin")
    with pytest.raises(ConfigError, match=r"^hub:other/one "):
        find("hub:other/one")
    with pytest.raises(ConfigError, match=r"^hub:one: .*hub:owner/name"):
        find("hub:one")


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'pip install "diptych\[hub\]"'):
        find("hub:some/one")


def test_other_words_are_no_source(tmp_path):
    with pytest.raises(ConfigError, match=r"^uniter-bas: .*'uniter-base'\?"):
        find("uniter-bas")
    with pytest.raises(ConfigError, match="/nowhere: "):
        find(tmp_path / "nowhere")
    assert find(tmp_path) == tmp_path


def test_the_list_is_complete():
    for name, entry in checkpoints().items():
        assert entry.keys() <= {"family", "source", "status", "sha256", "bytes", "package", "files"}, name
        assert {"family", "status"} <= entry.keys(), name
        assert {"source", "package"} & entry.keys(), name
        assert entry.get("source", "hub:").startswith(("hub:", "https://", "http://", "drive:")), name
        assert len(entry.get("sha256", "0" * 64)) == 64, name
