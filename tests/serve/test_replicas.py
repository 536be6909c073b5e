"""`diptych serve --engine ray`: two replicas, one of them killed under load."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.serve.test_memories import folder_for
from tests.serve.test_server import Running

from diptych.cli import main
from diptych.client import Client, ServiceError
from diptych.predict import load
from diptych.serve import verify

pytest.importorskip("ray.serve")
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
CLIENTS, EACH = 8, 40


def replicas_of(process: int) -> list[int]:
    """Processes of replicas below a process."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
    found = []
    for one, name in names.items():
        above = one
        while above > 1 and above != process:
            above = parents.get(above, 0)
        if above == process and b"_Replica" in name and b"ServeReplica" in name:
            found.append(one)
    return found


@pytest.mark.soak
@pytest.mark.skipif("DIPTYCH_SOAK" not in os.environ, reason="`make soak` runs it")
def test_a_killed_replica_loses_no_accepted_request(sources, models, tmp_path):
    memory = folder_for(models["text"], tmp_path / "memory")
    words = ("--engine", "ray", "--parallel", "2", "--threads", "1", "--drain-wait", "0")
    words += ("--memory", str(memory))
    running = Running(str(sources["text"]), "--audit", str(tmp_path / "audit"), *words)
    expected = load(sources["text"], device="cpu")
    got, raw, lost, lock = Counter(), {}, [], threading.Lock()

    def ask(number):
        with Client(running.url, tries=1, timeout=60) as client:
            for turn in range(EACH):
                text = f"text {number} {turn}"
                try:
                    answer = client.score(text=text)
                except (ServiceError, OSError) as error:
                    lost.append(f"{text}: {error}")
                    continue
                with lock:
                    got["answered"] += 1
                    raw[text] = answer.whole["raw"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    try:
        victims = replicas_of(running.process.pid)
        assert len(victims) == 2
        for thread in threads:
            thread.start()
        while got["answered"] < CLIENTS * EACH // 8:
            time.sleep(0.005)
        os.kill(victims[0], signal.SIGKILL)
        when = got["answered"]
        for thread in threads:
            thread.join(120)
        # More than were on their way: the load went on after the death.
        assert when + 2 * CLIENTS < CLIENTS * EACH
        assert not lost, running.url
        assert got["answered"] == CLIENTS * EACH
        # Replicas give vectors, also the one that was started anew; this process lets the cases vote.
        with Client(running.url, timeout=60) as client:
            for text in ("free coins", "no coins"):
                first = client.score(text=text)
                case = client.feedback(first.request_id, "block", label="hateful", teach=True)
                [voted] = client.score(text=text).whole["memory"]["cases"][:1]
                assert (voted["id"], voted["contribution"] > 1) == (case, True)
    finally:
        code = running.end(120)
    assert code == 0
    for text in sorted(raw)[::40]:
        assert raw[text] == pytest.approx(dict(expected.predict(text=text).scores), abs=1e-6)
    found = verify(tmp_path / "audit")
    assert (found.broken, found.lines) == (None, CLIENTS * EACH + 2 * 3)
    assert not replicas_of(running.process.pid)


def test_an_impossible_number_of_replicas_is_told(sources, capsys):
    assert main(["serve", str(sources["text"]), "--port", "0", "--engine", "ray", "--parallel", "0"]) == 2
    assert "--parallel" in capsys.readouterr().err
