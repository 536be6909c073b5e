"""The service under load. `make soak` runs these for minutes; `make test` has their short forms."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads

import httpx
import numpy as np
import pytest
import uvicorn
from tests.serve.bodies import hostile

from diptych.client import meme_of
from diptych.serve import Limits, service

SECONDS = float(os.environ.get("DIPTYCH_SOAK", "0"))
MEGABYTE = 1 << 20
LOOP = "loop of HTTP"
CROWD = Path(__file__).with_name("crowd.py")


def resident() -> int:
    """Bytes of memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def starved() -> float:
    """Seconds that the loop of HTTP was ready to run without a core; waits for locks are not in it."""
    loop = next(one for one in enumerate_threads() if one.name == LOOP)
    return int(Path(f"/proc/self/task/{loop.native_id}/schedstat").read_text().split()[1]) / 1e9


@contextmanager
def live(web) -> Iterator[str]:
    """The service on a port of this machine."""
    config = uvicorn.Config(web.app, port=0, http="h11", log_level="error", access_log=False, backlog=2048)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, name=LOOP)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def slow(model, monkeypatch, seconds=0.02, each=0.004):
    """A model that takes 20 ms and 4 ms per meme, as the one that the limits were measured with."""
    score = model.score

    def late(memes):
        time.sleep(seconds + each * len(memes))
        return score(memes)

    monkeypatch.setattr(model, "score", late)


def crowd(url: str, clients: int, seconds: float) -> list[tuple[int, float, str, float | None]]:
    """Codes, seconds, `Retry-After` and the service's own milliseconds, of clients in another process."""
    port = url.rpartition(":")[2]
    command = [sys.executable, "-S", str(CROWD), port, str(clients), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=True)
    return [tuple(one) for one in json.loads(done.stdout)]


def crowded(serve, models, monkeypatch, *, clients, seconds):
    slow(models["text"], monkeypatch)
    # What is kept of earlier requests is bounded by numbers that take minutes to reach; here, seconds.
    monkeypatch.setattr(service, "RECENT", 50)
    ask = serve("text", limits=Limits(queue=64, batch=16, cache=50))
    ask.web.log = lambda line: None  # the test would keep all lines
    with live(ask.web) as url:
        crowd(url, clients, min(2.0, seconds / 4))  # connections, caches
        before, waited = resident(), starved()
        start = time.monotonic()
        got = crowd(url, clients, seconds)
        spent = time.monotonic() - start
        after, waited = resident(), (starved() - waited) / spent
    codes = Counter(code for code, *_ in got)
    served = np.array([took for code, took, *_ in got if code == 200])
    inside = np.array([own / 1000 for code, *_, own in got if code == 200])
    batch = ask.service.metrics.model_seconds.labels("text")
    longest = batch._sum.get() / max(1, sum(bucket.get() for bucket in batch._buckets))
    print(
        f"\n{clients} clients, {spent:.0f} s: {dict(codes)}, {len(served) / spent:.0f}/s, served p50 "
        f"{np.quantile(served, 0.5):.3f} s p99 {np.quantile(served, 0.99):.3f} s, "
        f"inside {np.quantile(inside, 0.99):.3f} s, {waited:.0%} of the time without a core, "
        f"memory {(after - before) / MEGABYTE:+.1f} MB"
    )
    assert set(codes) <= {200, 429}
    assert all(retry.isdigit() for code, _, retry, _ in got if code == 429)
    return codes, inside, waited, longest, after - before


def test_a_crowd_gets_answers_or_is_told_to_come_again(serve, models, monkeypatch):
    codes, *_ = crowded(serve, models, monkeypatch, clients=80, seconds=0.5)
    assert codes[200]
    assert codes[429]


@pytest.mark.soak
@pytest.mark.skipif(not SECONDS, reason="`make soak` runs it")
@pytest.mark.timeout(SECONDS + 300)
def test_two_hundred_clients_and_a_slow_model(serve, models, monkeypatch):
    codes, inside, waited, longest, grown = crowded(serve, models, monkeypatch, clients=200, seconds=SECONDS)
    assert codes[429]
    # A meme waits for the four batches of the full queue and for the one that runs, and half as much for its
    # turn. What the machine gave to other programs is not the service's; what it waits for its own locks is.
    assert (1 - waited) * np.quantile(inside, 0.99) <= 1.5 * (64 / 16 + 1) * longest + 0.5
    assert grown < 30 * MEGABYTE


def fuzzed(ask, picture, *, cases, seed):
    """Send hostile requests, ten at once; the fixture holds every answer against the description."""
    draw = random.Random(seed)
    data, codes = picture.read_bytes(), Counter[int]()
    for _ in range(cases // 10):
        requests = []
        for _ in range(10):
            path, content, kind = hostile(draw, data)
            headers = {"content-type": kind} if kind else {}
            requests.append(("POST", path, {"content": content, "headers": headers}))
        codes.update(response.status_code for response in ask.together(requests))
    return codes


def test_hostile_bodies_get_problems(serve, picture):
    ask = serve("pixels", limits=Limits(pixels=1_000_000), policies=True)
    codes = fuzzed(ask, picture, cases=60, seed=1)
    assert not {code for code in codes if code >= 500}, ask.lines
    assert codes[422]


@pytest.mark.soak
@pytest.mark.skipif(not SECONDS, reason="`make soak` runs it")
@pytest.mark.timeout(1200)
def test_two_thousand_hostile_bodies(serve, picture):
    ask = serve("pixels", policies=True)
    fuzzed(ask, picture, cases=200, seed=2)
    before = resident()
    codes = fuzzed(ask, picture, cases=2000, seed=3)
    print(f"\n2,000 hostile bodies: {dict(codes)}, memory {(resident() - before) / MEGABYTE:+.1f} MB")
    assert not {code for code in codes if code >= 500}, [line for line in ask.lines if '"error"' in line]
    assert resident() - before < 3 * Limits().pixels + 30 * MEGABYTE


def reloaded(serve, models, picture, *, seconds):
    """Answers of clients while two models take turns under one name."""
    one, two = models["text"], models["pixels"]
    body = meme_of(text="a", image=picture)
    alone = {}
    for model in (one, two):
        ask = serve(model.name)
        answer = ask.score(body).json()
        alone[model.sha256] = answer["raw"]
    names = {id(one): one.name, id(two): two.name}
    one.name = two.name = "served"
    try:
        turns = iter([two, one] * 10_000)
        ask = serve("text", reload=lambda name: next(turns), limits=Limits(cache=0))
        ask.service.engine.models = {"served": one}
        with live(ask.web) as url:
            return alone, asyncio.run(_reloads(url, body, seconds))
    finally:
        one.name, two.name = names[id(one)], names[id(two)]


async def _reloads(url, body, seconds):
    start, answers, seen = time.monotonic(), [], set()

    def goes_on():
        spent = time.monotonic() - start
        # On a busy machine, longer: both models must have answered.
        return spent < seconds or (len(seen) < 2 and spent < seconds + 20)

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def ask():
            while goes_on():
                answers.append(await client.post("/v1/score", json=body))
                seen.add(answers[-1].json()["model"]["sha256"])

        async def swap():
            while goes_on():
                answers.append(await client.post("/v1/models/served:reload"))
                await asyncio.sleep(0.01)

        await asyncio.gather(*(ask() for _ in range(8)), swap())
    return answers


def _never_mixed(alone, answers):
    assert {answer.status_code for answer in answers} == {200}
    scored = [answer.json() for answer in answers if "raw" in answer.json()]
    for answer in scored:
        expected = alone[answer["model"]["sha256"]]
        assert answer["raw"] == pytest.approx(expected, abs=1e-6)
    return {answer["model"]["sha256"] for answer in scored}


def test_a_reload_under_load_mixes_no_models(serve, models, picture):
    assert len(_never_mixed(*reloaded(serve, models, picture, seconds=0.5))) == 2


@pytest.mark.soak
@pytest.mark.skipif(not SECONDS, reason="`make soak` runs it")
@pytest.mark.timeout(SECONDS + 300)
def test_reloads_for_long(serve, models, picture):
    alone, answers = reloaded(serve, models, picture, seconds=SECONDS / 4)
    print(f"\n{len(answers)} answers while models took turns")
    assert len(_never_mixed(alone, answers)) == 2
