"""Publishing to and fetching from a hub of our own, on this machine."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from diptych.bundle import load_bundle
from diptych.cli import main
from diptych.convert import pull_bundle, push_bundle
from diptych.errors import ConfigError, FormatError

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client needs to make a repository, commit files and fetch them."""

    files: dict[str, bytes]
    made: list[dict]
    refused = False

    def root(self):
        return f"http://{self.headers['Host']}"

    def do_HEAD(self):
        self.fetch(head=True)

    def do_GET(self):
        self.fetch(head=False)

    def do_POST(self):
        hub, body = type(self), self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if hub.refused:
            return self.answer({"error": "You may not write here"}, 403)
        if self.path == "/api/repos/create":
            hub.made.append(json.loads(body))
            return self.answer({"url": f"{self.root()}/me/memes", "id": "me/memes"})
        if self.path == "/api/validate-yaml":  # of the card
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            return self.answer(
                {
                    "files": [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked
                    ]
                }
            )
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"{self.root()}/me/memes/commit/{COMMIT}"
            return self.answer({"success": True, "commitUrl": address, "commitOid": COMMIT})
        return self.answer({}, 404)

    def fetch(self, *, head):
        files = type(self).files
        if "/tree/" in self.path:
            listed = [
                {"type": "file", "path": name, "oid": "0", "size": len(body)} for name, body in files.items()
            ]
            return self.answer(listed)
        if self.path.startswith("/api/models/me/memes"):
            return self.answer(
                {"id": "me/memes", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            )
        found = re.fullmatch(r"/me/memes/resolve/[^/]+/(.+)", self.path)
        if found and found[1] in files:
            return self.send(files[found[1]], head=head)
        return self.answer({}, 404)

    def answer(self, content, code=200):
        self.send(json.dumps(content).encode(), code=code)

    def send(self, body, *, code=200, head=False):
        self.send_response(code)
        if code == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    kind = type("OwnHub", (Hub,), {"files": {}, "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_is_published_can_be_fetched(
    bundle: Path, hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "notes.txt").write_text("of the owner")
    assert main(["push", str(bundle), "hub:me/memes", "--license", "apache-2.0", "--private"]) == 0
    assert COMMIT in capsys.readouterr().out
    assert hub.made[0].get("visibility") == "private" or hub.made[0].get("private") is True
    assert hub.files.keys() == {"bundle.yaml", "weights.safetensors", "README.md", "files/vocabulary.txt"}
    assert hub.files["README.md"].startswith(b"---\nlibrary_name: diptych\nlicense: apache-2.0\n")
    assert b"license" not in (bundle / "README.md").read_bytes().partition(b"---\n\n")[0]  # ours is as it was
    assert main(["pull", "hub:me/memes", str(tmp_path / "again")]) == 0
    first, second = load_bundle(bundle), load_bundle(tmp_path / "again")
    weights = second.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.model.state_dict().items())
    assert not any(path.is_symlink() for path in (tmp_path / "again").rglob("*"))


def test_an_existing_folder_is_replaced_only_on_request(bundle: Path, hub: type[Hub], tmp_path: Path) -> None:
    push_bundle(bundle, "hub:me/memes")
    with pytest.raises(ConfigError, match=r"bundle .*overwrite=true"):
        pull_bundle("hub:me/memes", bundle)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="mine"):
        pull_bundle("hub:me/memes", tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    pull_bundle("hub:me/memes", bundle, overwrite=True)
    assert load_bundle(bundle).metrics == {"auroc": 0.75}


def test_a_hostile_bundle_does_not_appear(bundle: Path, hub: type[Hub], tmp_path: Path) -> None:
    push_bundle(bundle, "hub:me/memes")
    honest = hub.files["bundle.yaml"]
    hub.files["bundle.yaml"] = honest.replace(b"diptych.models.text_bert_tiny", b"os.system")
    with pytest.raises(ConfigError, match=r"os\.system"):
        pull_bundle("hub:me/memes", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_repository_without_a_bundle_is_refused(hub: type[Hub], tmp_path: Path) -> None:
    hub.files["config.json"] = b"{}"
    with pytest.raises((FormatError, ConfigError)):
        pull_bundle("hub:me/memes", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_damaged_bundle_is_not_published(bundle: Path, hub: type[Hub]) -> None:
    (bundle / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(FormatError, match=r"weights\.safetensors"):
        push_bundle(bundle, "hub:me/memes")
    assert not hub.made


def test_a_refusal_of_the_server_is_one_error(bundle: Path, hub: type[Hub]) -> None:
    hub.refused = True
    with pytest.raises(ConfigError, match="hub:me/memes"):
        push_bundle(bundle, "hub:me/memes")


@pytest.mark.parametrize("target", ["me/memes", "hub:memes", "hub:me/memes/weights.safetensors"])
def test_only_a_repository_is_a_target(bundle: Path, target: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(target)):
        push_bundle(bundle, target)
