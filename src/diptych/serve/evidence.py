"""Evidence for a verdict: what each word and region adds to it, computed between the batches of others."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

from diptych.data import Row
from diptych.errors import DiptychError
from diptych.explain import Budget, Variants, evidence_of, explanation
from diptych.explain.document import Explanation
from diptych.predict import Predictor
from diptych.predictions import Predictions
from diptych.serve.engine import Engine
from diptych.serve.models import Member, Resident, Scored
from diptych.serve.problems import Problem
from diptych.serve.regions import Meme

POINTER = "/options/explain"
WORDS, GROUPS = 24, 12  # parts of a text and of a picture; the time grows with their sum


class InTurns(Predictor):
    """A predictor each of whose batches is a turn of the thread that owns the models.

    Args:
        own: the loaded one, with which the weights are shared.
        turn: runs a function on that thread, and returns its result.
    """

    def __init__(self, own: Predictor, turn: Callable[[Callable[[], Predictions]], Predictions]) -> None:
        # Not initialized anew: that would move the weights under the hands of the thread.
        self.__dict__.update(own.__dict__)
        self.turn = turn

    def predict_rows(self, examples: Sequence[Sequence[Row]]) -> Predictions:
        return self.turn(lambda: Predictor.predict_rows(self, examples))


def explained(
    engine: Engine, model: Resident, meme: Meme, scored: Scored, *, deadline: float, gone: Event
) -> Explanation:
    """Explain what a model says about a meme.

    A study answers by a blend, which has no words and regions of its own. For it, the member is explained
    whose probability is nearest to that of the blend.

    Args:
        deadline: by `time.monotonic`.
        gone: set when nobody waits any more.

    Raises:
        Problem: `deadline`, or the model cannot be explained.
    """
    name, member = _nearest(model, scored)

    def turn(work: Callable[[], Predictions]) -> Predictions:
        left = deadline - time.monotonic()
        if gone.is_set() or left <= 0:
            raise Problem("deadline", "the evidence took too long.", pointer=POINTER)
        result = engine.turn(work)
        try:
            return result.result(left)
        except TimeoutError as error:
            result.cancel()
            raise Problem("deadline", "the evidence took too long.", pointer=POINTER) from error

    budget = Budget(
        permutations=engine.limits.permutations,
        words=WORDS,
        groups=GROUPS,
        batch_size=engine.limits.batch,
    )
    try:
        variants = Variants(InTurns(member.predictor, turn), *member.opened(meme), budget)
        # Relevance needs gradients, whose hooks would see the batches of others.
        why = evidence_of(variants, attention=False)
    except DiptychError as error:
        raise Problem("invalid-request", f"no evidence: {error}", pointer=POINTER) from error
    about: dict[str, Any] = {"name": model.name, "sha256": model.sha256}
    return explanation(why, model=about | ({"member": name} if name else {}))


def _nearest(model: Resident, scored: Scored) -> tuple[str, Member]:
    if not scored.members:
        return next(iter(model.members.items()))
    blend = scored.scores[model.positive]
    name = min(scored.members, key=lambda one: abs(scored.members[one] - blend))
    return name, model.members[name]
