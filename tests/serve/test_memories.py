"""Policy memory in the service: what people teach counts in the next request."""

import time
from base64 import b64encode
from hashlib import sha256

import numpy as np
import pytest
from tests.serve.conftest import policy_for

from diptych.errors import ConfigError, FormatError
from diptych.files import claimed
from diptych.memory import Learned, Memory, ask_meme, change, vectors_of
from diptych.serve import AuditLog, load_model, memories
from diptych.serve.audit import records
from diptych.serve.keys import Keys
from diptych.serve.memories import LiveMemory, read_memories, read_memories_again
from diptych.serve.regions import Meme

LEARNED = Learned(least=0.99, weight=6.0, split="dev", checksum="x", examples=9)


def folder_for(resident, place, **options):
    """A fitted memory without cases."""
    rows = resident.prepare(Meme(text="a", image=white())).rows[0]
    width = vectors_of(resident.first, [rows], ("pooled",)).shape[1]
    about = {
        "model": resident.sha256,
        "parts": ("pooled",),
        "classes": resident.classes,
        "vectors": np.zeros((0, width), np.float32),
        "center": np.zeros(width, np.float32),
        "learned": LEARNED,
    }
    Memory(cases=(), **about | options).save(place)
    return place


def white():
    from PIL import Image

    return Image.new("RGB", (32, 32), "white")


@pytest.fixture
def taught(serve, models, tmp_path):
    """Starts a service of the text model with a memory and a log."""
    started = []

    def start(**options):
        model = models["text"]
        model.memory = None
        read_memories([folder_for(model, tmp_path / "memory")], [model])
        ask = serve("text", audit=AuditLog(tmp_path / "audit"), **options)
        started.append(ask)
        return ask

    yield start
    for ask in started:
        ask.service.audit.close()
    models["text"].memory, models["text"].parts = None, ()


def teach(ask, request_id, label="hateful", *, headers=None, **more):
    body = {"request_id": request_id, "action": "block", "label": label, "teach": True}
    return ask("POST", "/v1/feedback", json=body | more, headers=headers or {})


def test_a_lesson_counts_in_the_next_request(taught, sources, picture, tmp_path):
    ask = taught()
    first = ask.score({"text": "free coins"}).json()
    assert (first["memory"]["cases"], first["memory"]["before"]) == ([], first["raw"])
    start = time.monotonic()
    said = teach(ask, first["request_id"], policy="spam", note="a campaign").json()
    second = ask.score({"text": "free coins"}).json()
    assert time.monotonic() - start < 1
    # The model was not asked again, and its memory was.
    assert second["timing_ms"]["cache"] == "hit"
    [case] = second["memory"]["cases"]
    assert (case["id"], case["policy"], case["label"], case["text"]) == (
        said["case"], "spam", "hateful", "free coins",
    )  # fmt: skip
    assert case["contribution"] == pytest.approx(6.0, abs=1e-4)
    assert second["memory"]["before"] == first["raw"]
    odds = [np.log(one["raw"]["hateful"] / one["raw"]["benign"]) for one in (first, second)]
    assert odds[1] - odds[0] == pytest.approx(6.0, abs=1e-3)
    # The same as `diptych score --memory`, which sees a picture that this model does not read.
    memory = Memory.load(tmp_path / "memory")
    _, recall = ask_meme(sources["text"], memory, image=picture, text="free coins", device="cpu")
    assert second["raw"] == pytest.approx(recall.scores, abs=1e-6)
    lines = [one for one in records(tmp_path / "audit") if one["kind"] == "decision"]
    assert [one["cases"] for one in lines] == [[], [case["id"]]]
    assert lines[0]["memory"] != lines[1]["memory"] == said["memory"] == second["memory"]["version"]
    [written] = [one for one in records(tmp_path / "audit") if one["kind"] == "feedback"]
    assert (written["case"], written["policy"], written["key"]) == (case["id"], "spam", "everybody")
    assert 'diptych_memory_cases{model="text"} 1.0' in ask("GET", "/metrics").text
    card = ask("GET", "/v1/models/text").json()["memory"]
    assert (card["cases"], card["policies"], card["fitted"]) == (1, ["spam"], True)


def test_the_policy_decides_with_the_memory(taught, models):
    ask = taught()
    models["text"].decide_by("band", "f" * 64, policy_for(models["text"], allow=0.1, block=0.95))
    first = ask.score({"text": "free coins"}).json()
    assert first["decision"]["action"] == "review"
    teach(ask, first["request_id"])
    assert ask.score({"text": "free coins"}).json()["decision"]["action"] == "block"
    # Drift is about the model: both scores are its own.
    assert 'diptych_score_bucket{le="0.9",model="text"} 2.0' in ask("GET", "/metrics").text


def test_a_meme_taught_again_is_one_case(taught, tmp_path):
    ask = taught()
    ids = [ask.score({"text": "free coins"}).json()["request_id"] for _ in range(2)]
    cases = {
        teach(ask, one, label).json()["case"] for one, label in zip(ids, ("hateful", "benign"), strict=True)
    }
    memory = Memory.load(tmp_path / "memory")
    assert [(case.id, case.label) for case in memory.cases] == [(cases.pop(), "benign")]
    assert not cases


def test_what_changes_beside_the_service_counts(taught, tmp_path, capsys):
    ask, place = taught(), tmp_path / "memory"
    first = ask.score({"text": "free coins"}).json()
    case = teach(ask, first["request_id"]).json()["case"]
    change(place, lambda memory: memory.without([case]))
    again = ask.score({"text": "free coins"}).json()
    assert (again["memory"]["cases"], again["raw"]) == ([], first["raw"])
    (place / "memory.json").write_text("{")
    damaged = ask.score({"text": "free coins"})
    assert (damaged.status_code, damaged.json()["memory"]) == (200, again["memory"])
    assert "the old memory stays" in capsys.readouterr().err
    refused = teach(ask, first["request_id"])
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")


@pytest.mark.parametrize(
    ("teachers", "expected"), [("reviewer", [403, 200, 200]), ("admin", [403, 403, 200])]
)
def test_who_may_teach(taught, tmp_path, teachers, expected):
    path, roles = tmp_path / "keys.txt", ("user", "reviewer", "admin")
    path.write_text("\n".join(f"{role}:{sha256(role.encode()).hexdigest()}:{role}" for role in roles))
    path.chmod(0o600)
    ask = taught(keys=Keys(path), teachers=teachers)
    scored = ask.score({"text": "a"}, headers={"x-api-key": "user"}).json()["request_id"]
    codes = [teach(ask, scored, headers={"x-api-key": role}).status_code for role in roles]
    assert codes == expected
    # Whoever may not teach may still say what should have happened; a refused lesson leaves no line.
    plain = {"request_id": scored, "action": "allow"}
    assert ask("POST", "/v1/feedback", json=plain, headers={"x-api-key": "user"}).status_code == 200
    written = [one["key"] for one in records(tmp_path / "audit") if one["kind"] == "feedback"]
    assert written == [role for role, code in zip(roles, codes, strict=True) if code == 200] + ["user"]


def test_lessons_that_are_refused(taught, serve, picture):
    ask = taught()
    known = ask.score({"text": "a"}).json()["request_id"]
    for found, status, pointer in (
        (teach(ask, known, None), 422, "/label"),
        (teach(ask, known, "spam"), 422, "/label"),
        (teach(ask, "never-asked"), 409, None),
    ):
        assert found.status_code == status
        assert [one["pointer"] for one in found.json().get("errors", [])] == ([pointer] if pointer else [])
    other = serve("pixels")
    body = {"text": "a", "image": {"bytes": b64encode(picture.read_bytes()).decode()}}
    assert teach(other, other.score(body).json()["request_id"]).status_code == 409


def test_a_memory_is_of_one_model_that_is_served(models, tmp_path):
    text, pixels = models["text"], models["pixels"]
    one, two = folder_for(text, tmp_path / "one"), folder_for(text, tmp_path / "two")
    try:
        with pytest.raises(ConfigError, match=str(one)):
            read_memories([one], [pixels])
        with pytest.raises(ConfigError) as caught:
            read_memories([one, two], [text, pixels])
        assert {str(one), str(two)} <= {*str(caught.value).split()}
        with pytest.raises(FormatError):
            read_memories([tmp_path], [text])
        # A model that was loaded again needs a memory of its own.
        with pytest.raises(ConfigError, match=pixels.sha256[:12]):
            read_memories_again([one], text, pixels)
        text.memory, text.tree = None, {}
        with pytest.raises(ConfigError, match="study"):
            read_memories([one], [text])
    finally:
        text.memory, text.tree, text.parts = None, None, ()


def test_another_memory_in_the_same_folder_is_not_taken(models, tmp_path, capsys):
    place = folder_for(models["text"], tmp_path / "memory")
    live = LiveMemory(place, model=models["text"].sha256, classes=models["text"].classes)
    before = live.current()
    folder_for(models["text"], place, model="f" * 64)
    assert live.current() is before
    folder_for(models["text"], place, center=np.zeros(3, np.float32), vectors=np.zeros((0, 3), np.float32))
    assert live.current() is before
    assert capsys.readouterr().err.count("the old memory stays") == 2


def test_a_memory_that_another_process_changes_is_waited_for(taught, tmp_path, monkeypatch):
    monkeypatch.setattr(memories, "PATIENCE", 0.2)
    ask = taught()
    known = ask.score({"text": "a"}).json()["request_id"]
    place = (tmp_path / "memory").resolve()
    start = time.monotonic()
    with claimed(place, lock=place.with_name(f".{place.name}.change")):
        refused = teach(ask, known)
    assert time.monotonic() - start >= 0.2
    assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
    assert teach(ask, known).status_code == 200


def test_a_model_loaded_again_has_no_old_lessons(taught, sources, setup, models, tmp_path):
    ask = taught()
    known = ask.score({"text": "a"}).json()["request_id"]
    new = load_model("text", sources["pixels"], setup)
    new.classes = models["text"].classes
    read_memories([folder_for(new, tmp_path / "new")], [new])
    ask.service.exchange(new)
    refused = teach(ask, known)
    assert (refused.status_code, "score the meme again" in refused.json()["detail"]) == (409, True)
