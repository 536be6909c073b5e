"""The service as a process: it listens, answers, stops without losing a request; and its client."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.serve.conftest import policy_for, saved

from diptych.cli import main
from diptych.client import Client, ServiceError, meme_of
from diptych.errors import ConfigError, FormatError
from diptych.predict import load
from diptych.serve import Options, Setup, build, verify
from diptych.serve.keys import read_keys
from diptych.serve.models import named_models
from diptych.serve.policies import read_again, read_policies
from diptych.serve.server import listen


class Running:
    """`diptych serve` in a process of its own."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "diptych.cli", "serve", "--port", "0", "--device", "cpu", *words]
        # A pipe that nobody reads would stop the service at its 300th line.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("ready: "):
                self.url = line.split()[1]
                return
        self.process.wait()
        raise AssertionError(self._read_log())

    def end(self, seconds: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=seconds)
        self.log = self._read_log()
        return self.process.returncode

    def _read_log(self) -> str:
        with self._log as file:
            file.seek(0)
            return file.read()


@pytest.fixture(scope="module")
def running(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("log")
    words = (
        str(sources["pixels"]),
        str(sources["text"]),
        "--audit",
        str(folder / "audit"),
        "--drain-wait",
        "0",
        "--metrics-port",
        "0",
    )
    one = Running(*words)
    one.audit = folder / "audit"
    yield one
    if one.process.poll() is None:
        one.end()


def test_the_client_is_answered(running, sources, picture):
    with Client(running.url) as client:
        expected = load(sources["pixels"], device="cpu").predict(text="what a day", image=picture).scores
        answer = client.score(image=picture, text="what a day")
        assert (answer.scores, answer.action, answer.model) == (dict(expected), None, "pixels")
        with pytest.raises(ServiceError) as caught:
            client.score(text="a")
        assert (caught.value.kind, caught.value.status, [*caught.value.errors]) == (
            "invalid-request",
            422,
            ["/image"],
        )
        first, second = client.score_batch([meme_of(text="a", model="text"), meme_of(text="a")])
        assert first.model == "text"
        assert second.kind == "invalid-request"
        client.feedback(answer.request_id, "block")
        assert [card["name"] for card in client.models()] == ["pixels", "text"]
        reloaded = client.reload("text")
        assert reloaded["before"] == reloaded["after"]


def test_metrics_have_a_port_of_their_own(running):
    [beside] = [line.split()[1] for line in running.said if line.startswith("metrics: ")]
    root = beside.removesuffix("/metrics")
    with httpx.Client(verify=False, trust_env=False) as client:
        assert f'sha256="{load_sum(client, running.url)}"' in client.get(beside).text
        assert [client.get(f"{root}{path}").status_code for path in ("/livez", "/readyz")] == [200, 200]
        # It says nothing else, and the other port has no metrics.
        assert [client.get(f"{root}{path}").status_code for path in ("/v1/models", "/")] == [404, 404]
        assert client.get(f"{running.url}/metrics").status_code == 404
        assert "/metrics" not in client.get(f"{running.url}/openapi.json").json()["paths"]


def load_sum(client, url):
    return client.get(f"{url}/v1/models/text").json()["sha256"]


def test_sigterm_loses_no_accepted_request(running):
    """The last test of this process: all that were sent before the signal are answered."""

    def ask(number):
        with Client(running.url, tries=1) as client:
            return client.score(text=f"text {number}", model="text").request_id

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, number) for number in range(40)]
        while not any(future.done() for future in futures):
            time.sleep(0.001)
        code = running.end()
        answered = set()
        for future in futures:
            try:
                answered.add(future.result())
            except OSError:  # not accepted any more
                continue
    assert code == 0
    assert answered
    found = verify(running.audit)
    assert found.broken is None
    text = "".join(path.read_text() for path in running.audit.glob("*.jsonl"))
    # Whatever was answered is in the log, and whatever is in the log was answered.
    assert sum(f'"{one}"' in text for one in answered) == len(answered)
    assert text.count('"model": "text"') == len(answered) + 1  # and the one of the batch before
    assert "text 3" not in running.log


def test_a_taken_port_is_one_clear_error(sources, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(sources["text"]), "--port", str(port)]) == 2
        assert str(port) in capsys.readouterr().err
        words = ["serve", str(sources["text"]), "--port", "0", "--metrics-port", str(port)]
        assert main(words) == 2
        assert f"{port} of 127.0.0.1" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        listen("no.such.host.invalid", 80)
    with pytest.raises(ConfigError):
        listen("127.0.0.1", 99_999_999_999)


def test_beyond_this_machine_only_with_keys(sources, capsys):
    assert main(["serve", str(sources["text"]), "--host", "0.0.0.0"]) == 2
    assert "--api-keys" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--limit", "que=3"], ["--limit", "queue=many"], ["--limit", "queue=0"], ["--fetch-from", "http://a"],
        ["--sample-allowed", "2"], ["--reference", "other=x.npz"], ["--api-keys", "missing.txt"],
        ["--review", "5"], ["--review", "-1"], ["--ocr", "--ocr-engines", "0"],
        ["--policy", "missing.yaml"], ["--audit", "pyproject.toml"],
    ],
)  # fmt: skip
def test_impossible_options_are_told(sources, words, capsys):
    given = ["serve", str(sources["text"]), "--port", "0", "--device", "cpu"]
    assert main([*given, *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_check_reads_everything_and_listens_nowhere(sources, tmp_path, capsys):
    keys = tmp_path / "keys.txt"
    keys.write_text(f"a:{'0' * 64}:user\n")
    keys.chmod(0o600)
    words = ["serve", str(sources["text"]), "--device", "cpu", "--audit", str(tmp_path / "audit"), "--check"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words += ["--port", str(taken.getsockname()[1]), "--review", "5"]
        assert main([*words, "--api-keys", str(keys)]) == 0
    assert capsys.readouterr().out.startswith("text ")
    assert not (tmp_path / "audit").exists()
    keys.write_text("key in clear")
    assert main([*words, "--api-keys", str(keys)]) == 2
    assert f"{keys}:1" in capsys.readouterr().err


def test_a_model_without_regions_or_with_two_policies_is_refused(sources, models, tmp_path):
    with pytest.raises(ConfigError, match="--features"):
        build(Options(models=[str(sources["regions"])], setup=Setup(device="cpu")))
    with pytest.raises(FormatError):
        build(Options(models=[str(tmp_path / "vanished")], setup=Setup(device="cpu")))
    for name in ("a", "b"):
        policy_for(models["text"]).save(tmp_path / f"{name}.yaml")
    read_policies([tmp_path / "a.yaml"], [models["text"]])
    assert models["text"].policy_name == "a"
    with pytest.raises(ConfigError, match=r"b\.yaml"):
        read_policies([tmp_path / "a.yaml", tmp_path / "b.yaml"], [models["text"]])
    with pytest.raises(ConfigError, match=models["text"].sha256[:12]):
        read_policies([tmp_path / "a.yaml"], [models["pixels"]])


def test_a_reload_takes_the_policy_of_the_new_model_whatever_its_name(sources, setup, memes, tmp_path):
    run = shutil.copytree(sources["text"], tmp_path / "run")
    folder = tmp_path / "policies"
    folder.mkdir()
    web = build(Options(models=[f"mine={run}"], policies=[folder], setup=Setup(device=setup.device)))
    old = web.service.engine.find("mine")
    try:
        assert old.policy is None
        shutil.rmtree(run)
        saved(run, memes, "text_bert_tiny", seed=7)
        new = web.load_again("mine")
        assert (new.policy, new.sha256 != old.sha256) == (None, True)
        policy_for(new).save(folder / "july.yaml")
        policy_for(old).save(folder / "june.yaml")
        new = web.load_again("mine")
        assert (new.policy_name, new.policy.model) == ("july", new.sha256)
        web.service.exchange(new)
        policy_for(new).save(folder / "again.yaml")
        with pytest.raises(ConfigError, match="again"):
            web.load_again("mine")
        (folder / "again.yaml").unlink()
        shutil.rmtree(run)
        saved(run, memes, "text_bert_tiny", seed=8)
        with pytest.raises(ConfigError, match=r"july\.yaml"):
            web.load_again("mine")
    finally:
        assert web.service.close()


def test_a_reload_leaves_the_policies_of_others_unread(models, tmp_path):
    one, two = models["text"], models["pixels"]
    for model in (one, two):
        (tmp_path / model.name).mkdir()
        policy_for(model).save(tmp_path / model.name / "policy.yaml")
    paths = [tmp_path / model.name / "policy.yaml" for model in (one, two)]
    read_policies(paths, [one, two])
    paths[1].write_text("damaged")
    read_again(paths, one, one, [two])
    assert one.policy_file == paths[0]
    with pytest.raises(FormatError):
        read_again(paths, two, two, [one])


def test_models_are_named_by_their_folders(tmp_path):
    words = ["runs/a", "x=runs/b", "runs/c/bundle"]
    assert [*named_models(words)] == ["a", "x", "c"]
    with pytest.raises(ConfigError, match="'a'"):
        named_models(["runs/a", "other/a"])


def test_keys_are_read_line_by_line(tmp_path):
    path = tmp_path / "keys"
    for text, line in (("a:b:user", 1), ("# x\nkey-in-clear", 2), (f"a:{'0' * 64}:owner", 1), ("", None)):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(FormatError) as caught:
            read_keys(path)
        assert f"{path}" + (f":{line}:" if line else "") in str(caught.value)
        assert "key-in-clear" not in str(caught.value)
    path.write_text(f"a:{'0' * 64}:user\na:{'1' * 64}:user\n")
    with pytest.raises(FormatError, match="'a'"):
        read_keys(path)
    path.write_text(f"a:{'0' * 64}:user\n")
    path.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        assert read_keys(path)["a"][1] == "user"


def test_the_client_is_patient(monkeypatch):
    """Refused for the moment twice, then answered; the pauses are those that the service asks for."""
    pauses, answers = [], [(429, "2"), (503, ""), (200, "")]
    monkeypatch.setattr("diptych.client.time.sleep", pauses.append)

    class Connection:
        def request(self, *words):
            return None

        def getresponse(self):
            status, self.after = answers.pop(0)
            self.status, self.headers = status, {"Retry-After": self.after}
            return self

        def read(self, most):
            return b'{"models": []}'

    client = Client("http://x.test:1/base/")
    client._connection = Connection()
    assert client.models() == []
    assert pauses == [2.0, 0.4]
    answers[:] = [(429, "9")] * 4
    with pytest.raises(ServiceError):
        client.models()
    with pytest.raises(ConfigError):
        Client("ftp://x")
