"""Evidence for a verdict: the numbers of `diptych explain`, in turns with the memes of others."""

import time
from base64 import b64encode
from threading import Event, get_ident

import pytest

from diptych.explain import Budget, explain
from diptych.predict import load
from diptych.serve import Limits, Problem
from diptych.serve.evidence import GROUPS, WORDS, _nearest, explained
from diptych.serve.models import Scored
from diptych.serve.regions import Meme

EXPLAIN = {"options": {"explain": True}}


def test_evidence_has_the_numbers_of_explain(serve, sources, models, memes):
    key = next(iter(models["regions"].members[""].find))
    ask = serve("regions", policies=True)
    answer = ask.score({"text": "what a day", "image": {"key": key}} | EXPLAIN).json()
    predictor = load(sources["regions"], device="cpu")
    example, found = models["regions"].members[""].opened(Meme(text="what a day", key=key))
    budget = Budget(permutations=ask.service.limits.permutations, words=WORDS, groups=GROUPS)
    why = explain(predictor, example, found, budget=budget)
    given = answer["evidence"]
    assert [part["contribution"] for part in given["parts"]] == pytest.approx(
        why.contributions.values.tolist(), abs=1e-5
    )
    assert [part["name"] for part in given["parts"]] == [player.name for player in why.players]
    assert {part["kind"] for part in given["parts"]} == {"word", "regions"}
    assert given["sides"]["both"] == pytest.approx(why.both, abs=1e-5)
    assert given["model"] == {"name": "regions", "sha256": models["regions"].sha256}
    assert answer["decision"]["action"] in ("allow", "review", "block")
    assert answer["timing_ms"]["explain"] > 0
    # The verdict is the one without evidence, which is not kept for those who did not ask for it.
    plain = ask.score({"text": "what a day", "image": {"key": key}}).json()
    assert (plain["raw"], plain["evidence"]) == (answer["raw"], None)
    again = ask.score({"text": "what a day", "image": {"key": key}} | EXPLAIN).json()
    assert (again["evidence"], again["timing_ms"]["cache"]) == (given, "hit")


def test_evidence_of_a_picture_of_a_stranger(serve, picture):
    image = {"bytes": b64encode(picture.read_bytes()).decode()}
    parts = serve("pixels").score({"text": "a b", "image": image} | EXPLAIN).json()["evidence"]["parts"]
    assert [part["kind"] for part in parts] == ["word", "word", "pixels"]


def test_memes_of_others_are_scored_between_the_turns(serve, models, monkeypatch):
    """Only the thread of the models computes, and an explanation is many turns of it."""
    ask, threads = serve("text"), []
    member = models["text"].members[""].predictor
    run = member._run
    monkeypatch.setattr(member, "_run", lambda batches: (threads.append(get_ident()), run(batches))[1])
    body = {"text": "one two three four five six seven eight"} | EXPLAIN
    limits = [("POST", "/v1/score", {"json": one}) for one in (body, {"text": "a"})]
    first, second = ask.together(limits)
    assert (first.status_code, second.status_code) == (200, 200)
    assert len(threads) > 4
    assert set(threads) == {ask.service.engine._thread.ident}


def test_nobody_computes_for_a_client_that_is_gone(serve, models):
    engine = serve("text").service.engine
    gone, model = Event(), models["text"]
    gone.set()
    for deadline in (time.monotonic() + 10, time.monotonic() - 1):
        with pytest.raises(Problem) as caught:
            explained(engine, model, Meme(text="a b"), model.warm, deadline=deadline, gone=gone)
        assert (caught.value.kind, caught.value.errors[0][0]) == ("deadline", "/options/explain")
        gone.clear()


def test_evidence_has_a_deadline_of_its_own(serve):
    ask = serve("text", limits=Limits(explain=1.0, permutations=2_000, cache=0))
    words = " ".join(f"w{number}" for number in range(24))
    start = time.monotonic()
    response = ask.score({"text": words} | EXPLAIN)
    assert (response.status_code, response.json()["type"]) == (504, "/problems/deadline")
    assert time.monotonic() - start < 5
    assert ask.score({"text": "a"}).status_code == 200


def test_of_a_study_the_member_nearest_to_the_blend_is_explained(models, monkeypatch):
    study, [member] = models["text"], models["pixels"].members.values()
    monkeypatch.setattr(study, "members", {"a": study.members[""], "b": member})
    scored = Scored(scores={"benign": 0.5, "hateful": 0.5}, answer="benign", members={"a": 0.9, "b": 0.4})
    assert _nearest(study, scored) == ("b", member)
