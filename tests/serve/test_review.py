"""The queue of memes that people look at."""

from base64 import b64encode
from hashlib import sha256

from tests.serve.conftest import policy_for

from diptych.serve import AuditLog, verify
from diptych.serve.keys import Keys
from diptych.serve.review import ReviewQueue


def reviewing(serve, models, tmp_path, queue, **options):
    ask = serve("pixels", audit=AuditLog(tmp_path / "audit"), review=queue, **options)
    models["pixels"].decide_by("band", "f" * 64, policy_for(models["pixels"], allow=0.0, block=1.0))
    return ask


def test_memes_in_the_band_wait_until_a_person_decides(serve, models, tmp_path, picture):
    ask = reviewing(serve, models, tmp_path, ReviewQueue(10))
    data = picture.read_bytes()
    body = {"text": "what a day", "image": {"bytes": b64encode(data).decode()}, "tags": {"language": "en"}}
    scored = ask.score(body).json()
    ask.score(body)  # the same meme is looked at once
    listed = ask("GET", "/v1/review").json()
    assert listed["total"] == 1
    [item] = listed["items"]
    assert (item["request_id"], item["text"], item["tags"]) == (
        scored["request_id"], "what a day", {"language": "en"},
    )  # fmt: skip
    assert item["decision"] == scored["decision"]
    place = f"/v1/review/{item['request_id']}/picture"
    response = ask("GET", place)
    assert (response.content, response.headers["content-type"]) == (data, "application/octet-stream")
    assert "diptych_review_items 1.0" in ask("GET", "/metrics").text
    ask("POST", "/v1/feedback", json={"request_id": item["request_id"], "action": "block"})
    assert ask("GET", "/v1/review").json() == {"total": 0, "items": []}
    assert ask("GET", place).status_code == 404
    ask.service.audit.close()
    assert verify(tmp_path / "audit").lines == 3
    written = "".join(path.read_text() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert "what a day" not in written + "".join(ask.lines)


def test_the_oldest_go_when_the_queue_is_full(serve, models, tmp_path, picture):
    data = picture.read_bytes()
    image = {"bytes": b64encode(data).decode()}
    for queue, left in ((ReviewQueue(2), ["b", "c"]), (ReviewQueue(9, most_bytes=len(data) + 1), ["c"])):
        ask = reviewing(serve, models, tmp_path / left[0], queue)
        for text in "abc":
            ask.score({"text": text, "image": image})
        assert [item["text"] for item in ask("GET", "/v1/review").json()["items"]] == left
        # What has gone can come again.
        ask.score({"text": "a", "image": image, "options": {"members": False}})
        assert ask("GET", "/v1/review").json()["items"][-1]["text"] == "a"
        ask.service.audit.close()


def test_what_is_decided_unseen_is_not_kept(serve, models, tmp_path, picture):
    ask = reviewing(serve, models, tmp_path, ReviewQueue(10))
    body = {"text": "a", "image": {"bytes": b64encode(picture.read_bytes()).decode()}}
    for band in ({"allow": 1.0, "block": None}, {"allow": None, "block": 0.0}):
        models["pixels"].decide_by("band", "f" * 64, policy_for(models["pixels"], **band))
        assert ask.score(body).json()["decision"]["action"] != "review"
    assert len(ask.service.review) == 0
    ask.service.sample = 1.0
    models["pixels"].decide_by("band", "f" * 64, policy_for(models["pixels"], allow=1.0, block=None))
    ask.score(body)
    assert len(ask.service.review) == 1
    ask.service.audit.close()


def test_texts_are_shown_to_reviewers_alone(serve, models, tmp_path):
    path = tmp_path / "keys.txt"
    roles = ("user", "reviewer", "admin")
    path.write_text("\n".join(f"{role}:{sha256(role.encode()).hexdigest()}:{role}" for role in roles))
    path.chmod(0o600)
    ask = reviewing(serve, models, tmp_path, ReviewQueue(10), keys=Keys(path))
    codes = [ask("GET", "/v1/review", headers={"x-api-key": role}).status_code for role in roles]
    assert codes == [403, 200, 200]
    assert ask("POST", "/v1/models/pixels:reload", headers={"x-api-key": "reviewer"}).status_code == 403
    assert serve("text")("GET", "/v1/review").status_code == 409
    ask.service.audit.close()
