"""The addresses: every answer is held against `/openapi.json` by the fixture."""

import json
import struct
import zlib
from base64 import b64encode
from hashlib import sha256

import httpx
import openai
import pytest
from tests.serve.conftest import ROOT, policy_for

from diptych.errors import ConfigError
from diptych.serve import AuditLog, Limits, Problem, verify
from diptych.serve.intake import parse
from diptych.serve.keys import Keys
from diptych.serve.structs import BatchRequest, ScoreRequest


def bomb(width, height):
    """The head of a PNG that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(data):
    return {"bytes": b64encode(data).decode()}


BAD = [
    (b"{", 400, "not-json", None),
    (b"", 400, "not-json", None),
    (b"\xff\xfe", 400, "not-json", None),
    (b'{"input": ' + b"[" * 100_000, 422, "invalid-request", "/input"),
    (b"[]", 422, "invalid-request", ""),
    (b'{"text": 1}', 422, "invalid-request", "/text"),
    (b'{"text": "a", "flagged": true}', 422, "invalid-request", "/flagged"),
    (b'{"text": "a", "options": {"a/b": 2}}', 422, "invalid-request", "/options/a~1b"),
    (b'{"text": "a", "options": {"ocr": "maybe"}}', 422, "invalid-request", "/options/ocr"),
    (b'{"text": "a", "options": {"ocr": "always"}}', 422, "no-text", "/options/ocr"),
    (b'{"text": "a", "options": {"explain": true}}', 422, "invalid-request", "/image"),
    (b'{"text": "a", "image": {"bytes": "@@"}}', 422, "invalid-request", "/image/bytes"),
    (b'{"text": "a", "image": {"bytes": ""}}', 422, "bad-picture", "/image"),
    (b'{"text": "a", "image": {"bytes": "AAAA"}}', 422, "bad-picture", "/image"),
    (b'{"text": "a", "image": {}}', 422, "invalid-request", "/image"),
    (b'{"text": "a", "image": {"key": "a", "url": "b"}}', 422, "invalid-request", "/image"),
    (b'{"text": "a", "image": {"url": "https://example.org/a.png"}}', 422, "fetch-refused", "/image/url"),
    (b'{"text": "a"}', 422, "invalid-request", "/image"),
    (b'{"image": {"key": "a"}}', 422, "no-text", "/text"),
    (b'{"text": "a", "model": "other"}', 404, "unknown-model", "/model"),
    (b'{"text": "a", "policy": "strict"}', 422, "invalid-request", "/policy"),
    (b'{"text": "' + b"x" * 10_001 + b'"}', 422, "invalid-request", "/text"),
    (b'{"text": "a", "id": "' + b"x" * 300 + b'"}', 422, "invalid-request", "/id"),
    (b'{"text": "a", "tags": {"a": 1}}', 422, "invalid-request", "/tags"),
]


def test_bad_requests_are_told_by_pointer(serve):
    ask = serve("pixels")
    requests = [
        ("POST", "/v1/score", {"content": body, "headers": {"content-type": "application/json"}})
        for body, *_ in BAD
    ]
    for (body, status, kind, pointer), response in zip(BAD, ask.together(requests), strict=True):
        problem = response.json()
        shown = body[:60]
        assert (response.status_code, problem["type"]) == (status, f"/problems/{kind}"), shown
        assert problem["instance"] == f"urn:request:{response.headers['x-request-id']}"
        assert [one["pointer"] for one in problem.get("errors", [])] == (
            [] if pointer is None else [pointer]
        ), shown


def test_pictures_beyond_the_limits_are_never_decoded(serve, picture):
    ask = serve("pixels", limits=Limits(pixels=100_000, side=500, picture=30_000))
    bad = {
        "pixels": bomb(60_000, 60_000),
        "gigabyte": bomb(20_000, 20_000),
        "side": bomb(501, 10),
        "bytes": b"\x89PNG" + b"x" * 30_000,
    }
    for data in bad.values():
        response = ask.score({"text": "a", "image": encoded(data)})
        assert (response.status_code, response.json()["type"]) == (422, "/problems/picture-too-big")
    for data in (picture.read_bytes()[:300], b"BM" + b"\0" * 100, b"<svg/>", b"\0\0\0\x0cjP  \r\n\x87\n"):
        response = ask.score({"text": "a", "image": encoded(data)})
        assert (response.status_code, response.json()["type"]) == (422, "/problems/bad-picture")
    assert ask.service.metrics.bad_pictures.labels("picture-too-big")._value.get() == len(bad)


def test_bodies_have_a_limit_whatever_they_say(serve):
    ask = serve("text", limits=Limits(body=1000))

    async def slowly():
        for _ in range(100):
            yield b" " * 100

    for content in (b" " * 1001, slowly()):
        response = ask("POST", "/v1/score", content=content, headers={"content-type": "application/json"})
        assert (response.status_code, response.json()["type"]) == (413, "/problems/too-large")
    kinds = ("text/plain", "application/xml")
    for kind in kinds:
        assert ask("POST", "/v1/score", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_multipart_bodies_are_checked_part_by_part(serve, picture):
    ask, data = serve("pixels"), picture.read_bytes()
    request = (None, '{"text": "a"}')

    def kind(**parts):
        response = ask("POST", "/v1/score", files=parts)
        return response.json()["type"].rpartition("/")[2] if response.status_code != 200 else 200

    assert kind(request=request, image=("a.png", data, "image/png")) == 200
    assert kind(request=request, image=("a.svg", data, "image/svg+xml")) == "unsupported-media"
    assert kind(request=request, image=(None, "text")) == "invalid-request"
    assert kind(request=request, other=("a.png", data)) == "invalid-request"
    assert (
        kind(request=(None, '{"text": "a", "image": {"key": "b"}}'), image=("a.png", data))
        == "invalid-request"
    )
    assert kind(request=(None, "{"), image=("a.png", data)) == "not-json"
    assert kind(image=("a.png", data)) == "no-text"
    for body in (b"", b"--x\r\n", b"nonsense"):
        for more in ("", "; boundary=x"):
            headers = {"content-type": f"multipart/form-data{more}"}
            assert ask("POST", "/v1/score", content=body, headers=headers).status_code in (400, 422)


def test_a_batch_answers_each_item_in_order(serve, picture):
    ask = serve("pixels", limits=Limits(items=4))
    good = {"text": "a", "image": encoded(picture.read_bytes())}
    items = [good, {"text": "a"}, good | {"id": "third"}]
    answer = ask("POST", "/v1/score/batch", json={"items": items}).json()["items"]
    assert [one["result"] is not None for one in answer] == [True, False, True]
    assert answer[1]["problem"]["errors"][0]["pointer"] == "/items/1/image"
    assert answer[2]["result"]["id"] == "third"
    assert len({one["result"]["request_id"] for one in answer if one["result"]}) == 2
    assert ask("POST", "/v1/score/batch", json={"items": [good] * 5}).status_code == 413
    assert ask("POST", "/v1/score/batch", json={"items": []}).status_code == 422
    wrong = ask("POST", "/v1/score/batch", json={"items": [good, {"text": 3}]})
    assert wrong.json()["errors"][0]["pointer"] == "/items/1/text"


def test_openai_s_client_is_answered(serve, models, picture):
    ask = serve("pixels", "text", policies=True)
    models["text"].decide_by("default", "f" * 64, policy_for(models["text"], allow=1.0, block=None))

    def handle(request):
        response = ask(
            request.method, request.url.path, content=request.content, headers=dict(request.headers)
        )
        return httpx.Response(response.status_code, content=response.content, headers=response.headers)

    client = openai.OpenAI(
        api_key="x",
        base_url=f"{ROOT}/v1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(handle)),
    )
    url = f"data:image/png;base64,{b64encode(picture.read_bytes()).decode()}"
    parts = [{"type": "text", "text": "what a day"}, {"type": "image_url", "image_url": {"url": url}}]
    [result] = client.moderations.create(model="omni-moderation-latest", input=parts).results
    answer = ask.score({"text": "what a day", "image": encoded(picture.read_bytes())}).json()
    assert result.flagged == (answer["decision"]["action"] != "allow")
    assert result.category_scores.to_dict() == answer["scores"]
    assert result.category_applied_input_types.to_dict() == {"hateful": ["text", "image"]}
    allowed = client.moderations.create(model="text", input=["a", "b"])
    assert [one.flagged for one in allowed.results] == [False, False]
    assert allowed.results[0].categories.to_dict() == {"hateful": False}
    with pytest.raises(openai.UnprocessableEntityError):
        client.moderations.create(model="pixels", input="a text alone")


def test_nothing_is_flagged_without_a_policy(serve):
    response = serve("text")("POST", "/v1/moderations", json={"input": "a"})
    assert (response.status_code, response.json()["type"]) == (409, "/problems/conflict")


def test_keys_are_checked_by_role(serve, tmp_path):
    path = tmp_path / "keys.txt"
    lines = [
        f"{name}:{sha256(key.encode()).hexdigest()}:{role}"
        for name, key, role in (("a", "k1", "user"), ("b", "k2", "admin"))
    ]
    path.write_text("# who\n\n" + "\n".join(lines))
    path.chmod(0o600)
    ask = serve("text", keys=Keys(path, rate=0.001, burst=2))
    refused = ask.score({"text": "a"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert ask.score({"text": "a"}, headers={"authorization": "Bearer k3"}).status_code == 401
    assert ask.score({"text": "a"}, headers={"authorization": "bearer k1"}).status_code == 200
    assert ask("POST", "/v1/models/text:reload", headers={"x-api-key": "k1"}).status_code == 403
    assert ask.score({"text": "a"}, headers={"x-api-key": "k1"}).status_code == 200
    limited = ask.score({"text": "a"}, headers={"x-api-key": "k1"})
    assert (limited.status_code, limited.json()["type"]) == (429, "/problems/rate-limited")
    assert int(limited.headers["retry-after"]) > 1
    assert ask("POST", "/v1/models/text:reload", headers={"x-api-key": "k2"}).status_code == 409
    for free in ("/livez", "/readyz", "/metrics", "/openapi.json", "/"):
        assert ask("GET", free).status_code == 200
    path.write_text(lines[1])
    ask.web.keys.reload()
    assert ask.score({"text": "a"}, headers={"x-api-key": "k1"}).status_code == 401
    assert "k1" not in "".join(ask.lines)


def test_request_ids_are_kept_if_they_are_plain(serve):
    ask = serve("text")
    assert ask("GET", "/livez", headers={"x-request-id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    for bad in ("a b", "x" * 65, "a\tb", "é".encode("latin-1")):
        assert len(ask("GET", "/livez", headers={"x-request-id": bad}).headers["x-request-id"]) == 36


@pytest.mark.parametrize(("site", "code"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
def test_pages_of_others_may_not_ask(serve, site, code):
    about = {"sec-fetch-site": site}
    ask = serve("text")
    assert ask.score({"text": "a"}, headers=about).status_code == code
    assert ask("DELETE", "/v1/jobs/x", headers=about).status_code == (403 if code == 403 else 404)
    # What only reads is not readable for them anyway.
    assert ask("GET", "/livez", headers=about).status_code == 200


def test_the_type_that_curl_gives_is_explained(serve):
    ask, kind = serve("text"), {"content-type": "application/x-www-form-urlencoded"}
    for path, expected in (("/v1/score", "application/json"), ("/v1/jobs", "application/jsonl")):
        response = ask("POST", path, content=b"{}", headers=kind)
        assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-media")
        assert response.json()["detail"].endswith(f"-H 'Content-Type: {expected}'.")


def test_feedback_is_written_once_per_key(serve, tmp_path):
    log = AuditLog(tmp_path / "audit")
    ask = serve("text", policies=True, audit=log)
    scored = ask.score({"text": "a secret", "tags": {"language": "en"}}).json()
    given = {"request_id": scored["request_id"], "action": "block", "label": "hateful"}
    answers = [
        ask("POST", "/v1/feedback", json=given, headers={"idempotency-key": "1"}).json() for _ in range(2)
    ]
    assert answers == [{"request_id": scored["request_id"], "known": True, "case": None, "memory": None}] * 2
    other = ask("POST", "/v1/feedback", json=given | {"action": "allow"}, headers={"idempotency-key": "1"})
    assert other.status_code == 422
    log.close()
    assert verify(tmp_path / "audit").lines == 2
    [path] = (tmp_path / "audit").glob("*.jsonl")
    decision, feedback = map(json.loads, path.read_text().splitlines())
    assert decision["text"] == sha256(b"a secret").hexdigest()
    assert decision["tags"] == {"language": "en"}
    assert (feedback["decided"], feedback["action"]) == (decision["action"], "block")
    assert "secret" not in path.read_text() + "".join(ask.lines)
    assert json.loads(ask.lines[0])["action"] == decision["action"]
    assert serve("text")("POST", "/v1/feedback", json=given).status_code == 409


def test_models_have_cards(serve, models):
    ask = serve("text", "pixels", policies=True)
    cards = ask("GET", "/v1/models").json()["models"]
    assert [(card["name"], card["default"]) for card in cards] == [("text", True), ("pixels", False)]
    card = ask("GET", "/v1/models/pixels").json()
    assert card["sha256"] == models["pixels"].sha256
    assert card["policy"]["labels"]["hateful"]["allow"] == 0.2
    assert card["reads"] == ["pixels", "text"]
    assert ask("GET", "/v1/models/other").status_code == 404


def test_a_reload_swaps_or_leaves_the_old_one(serve, models):
    ask = serve("text", reload=lambda name: models["pixels"])
    models["pixels"].name, kept = "text", models["pixels"].name
    try:
        answer = ask("POST", "/v1/models/text:reload").json()
        assert answer == {"name": "text", "before": models["text"].sha256, "after": models["pixels"].sha256}
        assert ask("GET", "/v1/models/text").json()["sha256"] == models["pixels"].sha256
    finally:
        models["pixels"].name = kept

    def fail(name):
        raise ConfigError("the bundle vanished.")

    ask = serve("text", reload=fail)
    refused = ask("POST", "/v1/models/text:reload")
    assert (refused.status_code, "vanished" in refused.json()["detail"]) == (409, True)
    assert ask.score({"text": "a"}).json()["model"]["sha256"] == models["text"].sha256


def test_a_draining_service_says_so(serve):
    ask = serve("text")
    ask.service.leaving = True
    assert ask("GET", "/readyz").status_code == 503
    assert ask.score({"text": "a"}).status_code == 200
    ask.service.engine.draining = True
    refused = ask.score({"text": "b"})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/draining")
    assert refused.headers["retry-after"]
    assert ask("GET", "/livez").status_code == 200


def test_a_deadline_is_kept(serve, models, monkeypatch):
    from threading import Event

    hold = Event()
    model = models["text"]
    score = model.score
    monkeypatch.setattr(model, "score", lambda memes: (hold.wait(10), score(memes))[1])
    ask = serve("text", limits=Limits(deadline=1.0))
    response = ask.score({"text": "a"})
    hold.set()
    assert (response.status_code, response.json()["type"]) == (504, "/problems/deadline")
    assert ask.service.metrics.expired._value.get() == 1


def test_an_internal_error_tells_nothing(serve, models, monkeypatch):
    def fail(*_):
        raise RuntimeError("the text of a meme")

    monkeypatch.setattr(models["text"], "prepare", fail)
    response = serve("text").score({"text": "a"})
    assert (response.status_code, response.json()["type"]) == (500, "/problems/internal")
    assert "meme" not in response.text


def test_metrics_have_their_names(serve, models):
    ask = serve("text", policies=True)
    for text in ("a", "a", "b"):
        ask.score({"text": text})
    lines = ask("GET", "/metrics").text.splitlines()
    action = ask.score({"text": "a"}).json()["decision"]["action"]
    assert 'diptych_requests_total{code="200",path="/v1/score"} 3.0' in lines
    assert f'diptych_decisions_total{{action="{action}",model="text",policy="default"}} 3.0' in lines
    assert 'diptych_cache_total{result="hit"} 1.0' in lines
    assert any(line.startswith('diptych_model_info{calibration="platt') for line in lines)
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert {
        "diptych_request_seconds_bucket", "diptych_queue_seconds_sum", "diptych_batch_rows_count",
        "diptych_batch_fill_ratio_count", "diptych_queue_items", "diptych_inflight", "diptych_score_bucket",
        "diptych_expired_total", "diptych_cancelled_total", "process_resident_memory_bytes",
    } <= names  # fmt: skip


def test_drift_is_measured_against_a_reference():
    import numpy as np

    from diptych.calibrate.drift import stability_index
    from diptych.serve.metrics import Metrics

    rng = np.random.default_rng(0)
    before, live = rng.uniform(0, 1, 500), rng.uniform(0.5, 1, 200)
    for given in (True, False):
        metrics = Metrics(reference={"m": before} if given else {})
        for value in live if given else (*before, *live):
            metrics.scored("m", float(value))
        assert f'diptych_drift_psi{{model="m"}} {stability_index(before, live)}' in metrics.text().decode()


def test_the_page_comes_from_this_server_alone(serve):
    ask = serve("text")
    response = ask("GET", "/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert ask("GET", "/page/..%2fapp.py").status_code == 404
    assert ask("GET", "/page/app.py").status_code == 404


def test_problems_are_exceptions_with_a_status():
    problem = Problem("bad-picture", "no", pointer="/image").within("/items/3")
    assert (problem.status, problem.errors) == (422, (("/items/3/image", "no"),))


def test_a_full_queue_refuses_before_it_reads_a_body(serve):
    ask = serve("text", limits=Limits(queue=1))
    with ask.service.engine.admitted(1):
        response = ask("POST", "/v1/score", content=b"no JSON, which nobody has looked at")
        assert (response.status_code, response.json()["type"]) == (429, "/problems/overloaded")
        assert int(response.headers["retry-after"]) >= 1
    assert ask("POST", "/v1/score", content=b"no JSON").status_code == 400


@pytest.mark.parametrize(
    ("body", "shape", "fields"),
    [
        ({"image": {"data": ""}}, ScoreRequest, {"bytes", "url", "key"}),
        ({"items": [{"options": {"say": 1}}]}, BatchRequest, {"ocr", "explain", "members"}),
        ({"itemz": []}, BatchRequest, {"items"}),
    ],
)
def test_an_unknown_field_is_answered_by_the_known_ones(body, shape, fields):
    with pytest.raises(Problem) as caught:
        parse(json.dumps(body).encode(), shape)
    assert fields == set(str(caught.value).rpartition("are ")[2].rstrip(".").split(", "))
