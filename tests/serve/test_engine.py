"""The engine without HTTP: batches, poison, deadlines, clients that go away, and the end."""

import time
from concurrent.futures import CancelledError
from threading import Event

import pytest
import torch

from diptych.serve import Engine, Limits, Problem, Resident, Ticket
from diptych.serve.engine import chosen_for_batch
from diptych.serve.models import Prepared, Scored
from diptych.serve.regions import Meme


class Toy(Resident):
    """A model of which the tests decide when it goes on, and whom it poisons."""

    def __init__(self, name="toy", *, held=False):
        self.name, self.seen, self.go = name, [], Event()
        self.begun = Event()
        if not held:
            self.go.set()

    def score(self, memes):
        self.begun.set()
        assert self.go.wait(10)
        self.seen.append([meme.length for meme in memes])
        if any(meme.length == 666 for meme in memes):
            raise ValueError("a poisoned text that must not leave the service")
        return [Scored(scores={"no": 0.5, "yes": meme.length / 1000}, answer="no") for meme in memes]


def ticket(model, length=3, seconds=10.0):
    meme = Prepared(rows=(), length=length, regions=None)
    return Ticket(model=model, meme=meme, deadline=time.monotonic() + seconds)


@pytest.fixture
def engine():
    made = []

    def start(*toys, **limits):
        made.append(Engine({toy.name: toy for toy in toys}, limits=Limits(**limits)))
        return made[-1]

    yield start
    for one in made:
        assert one.stop(10.0)


def test_a_batch_has_the_oldest_and_is_never_over_its_cost():
    assert chosen_for_batch([5, None, 100, 6, 5, 4], most=3, cost=20) == {0, 4, 3}
    assert chosen_for_batch([5, 100, 5], most=8, cost=150) == {0, 2}
    assert chosen_for_batch([900], most=8, cost=10) == {0}
    assert chosen_for_batch([7, 7, 7, 7], most=2, cost=1000) == {0, 1}


def test_what_waits_is_scored_together_and_an_idle_engine_never_waits(engine):
    toy = Toy(held=True)
    running = engine(toy)
    first = running.submit(ticket(toy))
    assert toy.begun.wait(10)
    rest = [running.submit(ticket(toy, length)) for length in (3, 4, 5)]
    toy.go.set()
    assert [future.result(10)[0].scores["yes"] for future in (first, *rest)] == [0.003, 0.003, 0.004, 0.005]
    assert toy.seen == [[3], [3, 4, 5]]


def test_poison_fails_alone(engine):
    toy = Toy(held=True)
    running = engine(toy)
    running.submit(ticket(toy))
    assert toy.begun.wait(10)
    futures = [running.submit(ticket(toy, 666 if number == 5 else number)) for number in range(16)]
    toy.go.set()
    for number, future in enumerate(futures):
        if number == 5:
            with pytest.raises(Problem) as caught:
                future.result(10)
            assert (caught.value.kind, caught.value.status) == ("internal", 500)
            assert "poisoned" not in caught.value.detail
        else:
            assert future.result(10)[0].scores["yes"] == number / 1000
    # 16, 8, 4, 2, 1: halved, and not scored one by one.
    assert len(toy.seen) <= 1 + 2 * 4 + 1


def test_a_gone_client_costs_the_model_nothing(engine):
    toy = Toy(held=True)
    running = engine(toy)
    running.submit(ticket(toy))
    assert toy.begun.wait(10)
    gone, stays = running.submit(ticket(toy, 7)), running.submit(ticket(toy, 8))
    assert gone.cancel()
    toy.go.set()
    assert stays.result(10)[0].scores["yes"] == 0.008
    assert toy.seen == [[3], [8]]
    with pytest.raises(CancelledError):
        gone.result(0)


def test_a_meme_whose_deadline_passed_is_dropped(engine):
    toy = Toy(held=True)
    running = engine(toy)
    running.submit(ticket(toy))
    assert toy.begun.wait(10)
    late, stays = running.submit(ticket(toy, 7, seconds=0.0)), running.submit(ticket(toy, 8))
    toy.go.set()
    with pytest.raises(Problem) as caught:
        late.result(10)
    assert caught.value.kind == "deadline"
    assert stays.result(10)
    assert toy.seen == [[3], [8]]


def test_a_full_queue_refuses_at_once(engine):
    running = engine(Toy(), queue=2, queue_bytes=100)
    with running.admitted(10), running.admitted(10):
        with pytest.raises(Problem) as caught, running.admitted(1):
            pass
        assert (caught.value.kind, caught.value.status) == ("overloaded", 429)
        assert caught.value.retry_after >= 1
    with running.admitted(90), pytest.raises(Problem), running.admitted(11):
        pass
    with running.admitted(100):
        assert running.busy[0] == 1
    assert running.busy == (0, 0)


def test_a_swap_leaves_prepared_memes_to_the_old_model(engine):
    old, new = Toy(held=True), Toy()
    running = engine(old)
    first = running.submit(ticket(old))
    assert old.begun.wait(10)
    second, third = running.submit(ticket(old, 5)), running.submit(ticket(new, 6))
    running.swap(new)
    old.go.set()
    for future in (first, second, third):
        future.result(10)
    assert (old.seen, new.seen) == ([[3], [5]], [[6]])
    assert running.find(None) is new
    with pytest.raises(Problem) as caught:
        running.find("other")
    assert caught.value.kind == "unknown-model"


def test_the_end_finishes_the_queue(engine):
    toy = Toy(held=True)
    running = engine(toy)
    futures = [running.submit(ticket(toy, length)) for length in (1, 2, 3)]
    toy.go.set()
    assert running.stop(10.0)
    assert all(future.done() for future in futures)
    assert not running.alive


def test_numbers_that_are_none_are_an_error(models):
    model = models["text"]
    running = Engine({"text": model})
    weight = next(model.first.model.parameters())
    kept = weight.detach().clone()
    try:
        meme = model.prepare(Meme(text="a"))
        with torch.no_grad():
            weight.fill_(float("nan"))
        with pytest.raises(Problem) as caught:
            running.submit(Ticket(model=model, meme=meme, deadline=time.monotonic() + 10)).result(10)
        assert caught.value.kind == "internal"
    finally:
        with torch.no_grad():
            weight.copy_(kept)
        assert running.stop(10.0)
