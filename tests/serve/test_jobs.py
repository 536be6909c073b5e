"""Jobs: many memes behind all others; progress, results, cancellation and bounds."""

import json
import threading
import time
from base64 import b64encode
from concurrent.futures import wait
from dataclasses import replace
from hashlib import sha256

import httpx
import pytest
from tests.serve.test_engine import Toy, ticket
from tests.serve.test_soak import live

from diptych.client import Client, ServiceError, meme_of
from diptych.serve import AuditLog, Engine, Limits, verify
from diptych.serve.keys import Keys

# One client: each makes a context of TLS anew, which takes longer than a job.
HTTP = httpx.Client(verify=False, trust_env=False)
KIND = {"content-type": "application/jsonl"}


@pytest.fixture(autouse=True, scope="module")
def _connections():
    yield
    HTTP.close()


def lines(*memes):
    return "".join(json.dumps(meme) + "\n" for meme in memes).encode()


def ended(ask, url, id, **options):
    """The job once it has ended; every answer is held against the description."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        response = HTTP.get(f"{url}/v1/jobs/{id}", **options)
        ask.validate("GET", f"/v1/jobs/{id}", response)
        if response.json()["state"] != "running":
            return response.json()
        time.sleep(0.02)
    raise AssertionError(response.json())


@pytest.fixture
def held(models, monkeypatch):
    """The text model, which scores nothing until the event is set."""
    go, score = threading.Event(), models["text"].score
    monkeypatch.setattr(models["text"], "score", lambda memes: go.wait(30) and score(memes))
    yield go
    go.set()


def test_a_job_gives_the_answers_of_single_requests(serve, picture, tmp_path):
    ask = serve("text", "pixels", audit=AuditLog(tmp_path / "audit"))
    image = {"bytes": b64encode(picture.read_bytes()).decode()}
    memes = [{"text": f"text {number}", "id": f"m{number}"} for number in range(20)]
    memes[3:5] = [{"text": "a", "image": image, "model": "pixels"}, {"text": "a", "model": "pixels"}]
    with live(ask.web) as url:
        response = HTTP.post(f"{url}/v1/jobs", content=lines(*memes), headers=KIND)
        ask.validate("POST", "/v1/jobs", response)
        job = response.json()
        assert (response.status_code, job["items"], job["state"]) == (202, 20, "running")
        assert response.headers["location"] == f"/v1/jobs/{job['id']}"
        done = ended(ask, url, job["id"])
        assert (done["state"], done["done"], done["failed"]) == ("done", 20, 1)
        found = HTTP.get(url + done["results"])
        ask.validate("GET", done["results"], found)
        singles = [HTTP.post(f"{url}/v1/score", json=meme).json() for meme in memes]
        assert HTTP.get(f"{url}/v1/jobs").json()["jobs"] == [done]
        assert "diptych_job_items 0.0" in HTTP.get(f"{url}/metrics").text
    several = [json.loads(line) for line in found.text.splitlines()]
    assert [one["number"] for one in several] == [*range(20)]
    assert [one["id"] for one in several[:3]] == ["m0", "m1", "m2"]
    for line, single in zip(several, singles, strict=True):
        if line["result"] is None:
            assert line["problem"]["status"] == single["status"] == 422
            assert line["problem"]["errors"][0]["pointer"] == "/4" + single["errors"][0]["pointer"]
        else:
            assert line["result"]["raw"] == pytest.approx(single["raw"], abs=1e-6)
    ask.service.audit.close()
    # Decisions of jobs are in the log as all others are.
    assert verify(tmp_path / "audit").lines == 2 * 19


def test_jobs_wait_while_others_ask():
    toy = Toy(held=True)
    engine = Engine({"toy": toy}, limits=Limits(job_batch=2, batch=4))
    sent = [engine.submit(ticket(toy, 9))]
    assert toy.begun.wait(10)
    # Those of a job came first, and are scored last.
    sent += [engine.submit(replace(ticket(toy, length), low=True)) for length in (1, 2, 3)]
    sent += [engine.submit(ticket(toy, length)) for length in (4, 5, 6)]
    toy.go.set()
    wait(sent, 10)
    assert engine.stop(10.0)
    assert toy.seen == [[9], [4, 5, 6], [1, 2], [3]]


def test_a_full_queue_takes_no_room_from_jobs_and_jobs_none_from_it(serve, held):
    ask = serve("text", limits=Limits(queue=1, job_batch=4))
    with live(ask.web) as url:
        job = HTTP.post(f"{url}/v1/jobs", content=lines(*[{"text": "a"}] * 9), headers=KIND).json()
        time.sleep(0.2)
        assert HTTP.get(f"{url}/readyz").status_code == 200
        assert HTTP.get(f"{url}/v1/jobs/{job['id']}").json()["done"] == 0
        early = HTTP.get(f"{url}{job['results']}")
        assert (early.status_code, early.headers["retry-after"]) == (409, "5")
        held.set()
        assert ended(ask, url, job["id"])["failed"] == 0


def test_a_canceled_job_is_gone_and_costs_nothing_more(serve, held, models):
    ask = serve("text", limits=Limits(job_batch=2))
    with live(ask.web) as url:
        job = HTTP.post(f"{url}/v1/jobs", content=lines(*[{"text": "a"}] * 50), headers=KIND).json()
        response = HTTP.delete(f"{url}/v1/jobs/{job['id']}")
        ask.validate("DELETE", f"/v1/jobs/{job['id']}", response)
        assert response.json()["state"] == "stopped"
        held.set()
        assert HTTP.get(f"{url}/v1/jobs/{job['id']}").status_code == 404
        assert (ask.web.jobs.kept, ask.web.jobs.waiting) == (0, 0)
        assert HTTP.post(f"{url}/v1/score", json={"text": "b"}).status_code == 200
    scored = ask.service.metrics.batch_rows.labels("text")
    # Those that were with the model already, and the one after it.
    assert scored._sum.get() <= 4


def test_jobs_are_bounded_and_forgotten(serve, held, models):
    body = lines({"text": "x" * 300})
    ask = serve("text", limits=Limits(jobs=2, job_bytes=3000, job_items=4, job_body=2000))
    with live(ask.web) as url:
        ids = [HTTP.post(f"{url}/v1/jobs", content=body, headers=KIND).json()["id"] for _ in range(2)]
        full = HTTP.post(f"{url}/v1/jobs", content=body, headers=KIND)
        assert (full.status_code, full.headers["retry-after"]) == (429, "30")
        held.set()
        for id in ids:
            assert ended(ask, url, id)["failed"] == 0
        for content, code in ((body * 5, 413), (body * 7, 413), (b"", 422), (b"\n\n", 422)):
            assert HTTP.post(f"{url}/v1/jobs", content=content, headers=KIND).status_code == code
        for id in ids:
            job = ask.web.jobs._known[id]
            job.ended -= Limits().job_keep
        assert HTTP.get(f"{url}/v1/jobs").json()["jobs"] == []
        # Results that find no room are problems, and the memory stays bounded.
        job = HTTP.post(f"{url}/v1/jobs", content=body * 4, headers=KIND).json()
        assert ended(ask, url, job["id"])["failed"] > 0
        assert ask.web.jobs.kept < 3000 + 4 * 600


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b'{"text": "a"}\n{"text": 1}\n', 422, "/1/text"),
        (b'{"text": "a"}\n\n{"texts": "b"}\n', 422, "/1/texts"),
        (b'{"text": "a"}\n{', 400, "/1"),
        (b'{"text": "a", "options": {"explain": true}}', 422, "/0/options/explain"),
        (b'\xff\xfe{"text": "a"}', 400, "/0"),
    ],
)
def test_a_line_that_is_no_meme_stops_the_job_before_it_begins(serve, body, code, pointer):
    ask = serve("text")
    response = ask("POST", "/v1/jobs", content=body, headers=KIND)
    assert response.status_code == code
    assert [one["pointer"] for one in response.json()["errors"]] == [pointer]
    assert not ask("GET", "/v1/jobs").json()["jobs"]


def test_jobs_of_others_are_not_seen(serve, tmp_path):
    path = tmp_path / "keys.txt"
    roles = {"one": "user", "two": "reviewer", "boss": "admin"}
    path.write_text(
        "\n".join(f"{name}:{sha256(name.encode()).hexdigest()}:{role}" for name, role in roles.items())
    )
    path.chmod(0o600)
    ask = serve("text", keys=Keys(path))
    with live(ask.web) as url:
        sent = HTTP.post(f"{url}/v1/jobs", content=lines({"text": "a"}), headers=KIND | {"x-api-key": "one"})
        place = f"{url}/v1/jobs/{sent.json()['id']}"
        for call in (HTTP.get, HTTP.delete):
            assert call(place, headers={"x-api-key": "two"}).status_code == 404
        codes = [HTTP.get(place, headers={"x-api-key": name}).status_code for name in ("one", "boss")]
        assert codes == [200, 200]
        assert HTTP.post(f"{url}/v1/jobs", content=b"", headers=KIND).status_code == 401


def test_a_job_sent_twice_begins_once(serve):
    ask = serve("text")
    about = KIND | {"idempotency-key": "k"}
    with live(ask.web) as url:
        one, two = (
            HTTP.post(f"{url}/v1/jobs", content=lines({"text": "a"}), headers=about) for _ in range(2)
        )
        assert (one.json()["id"], one.headers["location"]) == (two.json()["id"], two.headers["location"])
        assert two.status_code == 202
        assert HTTP.post(f"{url}/v1/jobs", content=lines({"text": "b"}), headers=about).status_code == 422
        assert len(HTTP.get(f"{url}/v1/jobs").json()["jobs"]) == 1


def test_the_client_waits_for_a_job(serve, picture):
    ask = serve("text", "pixels")
    seen = []
    memes = [meme_of(text=f"t {number}", image=picture, model="pixels") for number in range(3)]
    with live(ask.web) as url, Client(url) as client:
        answers = client.score_job(
            [*memes, {"model": "pixels"}], pause=0.02, progress=lambda done, total: seen.append((done, total))
        )
        one = client.score(text="t 1", image=picture, model="pixels")
        id = client.submit([{"text": "a"}])
        client.cancel(id)
        with pytest.raises(ServiceError) as caught:
            client.job(id)
    assert caught.value.kind == "not-found"
    assert seen[-1] == (4, 4)
    assert answers[1].scores == pytest.approx(one.scores, abs=1e-6)
    assert isinstance(answers[3], ServiceError)


def test_a_stopping_service_takes_no_job_and_ends_those_that_run(serve, held):
    ask = serve("text", limits=Limits(job_batch=1))
    with live(ask.web) as url:
        job = HTTP.post(
            f"{url}/v1/jobs", content=lines(*[{"text": "a"}, {"text": "b"}] * 3), headers=KIND
        ).json()
        time.sleep(0.1)
        ask.service.leaving = True
        held.set()
        assert HTTP.post(f"{url}/v1/jobs", content=lines({"text": "a"}), headers=KIND).status_code == 503
        left = ended(ask, url, job["id"])
        assert (left["state"], left["done"]) == ("stopped", 1)
        # What was scored can be fetched until the process is gone.
        assert len(HTTP.get(url + left["results"]).text.splitlines()) == 1
        ask.service.leaving = False
