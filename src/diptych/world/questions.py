"""Questions about scenes, with answers that are true of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

from diptych.world.scene import PATTERNS, SUBJECTS, Scene

Topic = Literal["kind", "color", "pattern", "count", "place", "presence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a scene and its answer, one or two lower-case words or a number."""

    text: str
    answer: str
    topic: Topic


def ask(generator: Generator, scene: Scene) -> tuple[Question, ...]:
    """All questions about a scene, in random order; each has one answer."""
    # Only presence draws: everything else is what the scene shows.
    questions = [*_about_things(scene), *_about_relations(scene), *_about_presence(generator, scene)]
    # Data sets take the first few, which should be of all topics.
    return tuple(questions[place] for place in generator.permutation(len(questions)).tolist())


def _about_things(scene: Scene) -> Iterator[Question]:
    main, kinds = scene.subject, Counter(thing.kind for thing in scene.things)
    yield Question(text="what is the largest thing in the picture?", answer=main.kind, topic="kind")
    yield Question(text="what color is the largest thing?", answer=main.color, topic="color")
    yield Question(text="how many things are there?", answer=str(len(scene.things)), topic="count")
    for thing in scene.things:
        # "the cat" must be one cat.
        if kinds[thing.kind] == 1:
            yield Question(text=f"what color is the {thing.kind}?", answer=thing.color, topic="color")
    # The first pattern is "plain", about which nobody asks.
    for pattern in PATTERNS[1:]:
        answer = "yes" if main.pattern == pattern else "no"
        yield Question(text=f"is the {main.kind} {pattern}?", answer=answer, topic="pattern")


def _about_relations(scene: Scene) -> Iterator[Question]:
    """Where one thing is, unless several things answer the question."""
    kinds = Counter(thing.kind for thing in scene.things)
    found: dict[str, set[str]] = {}
    for relation in scene.relations():
        left, right = scene.things[relation.left].kind, scene.things[relation.right].kind
        if relation.name != "bigger than" and kinds[right] == 1:
            found.setdefault(f"what is {relation.name} the {right}?", set()).add(left)
    for text, answers in found.items():
        # Several things may be left of the tree.
        if len(answers) == 1:
            yield Question(text=text, answer=min(answers), topic="place")


def _about_presence(generator: Generator, scene: Scene) -> Iterator[Question]:
    """Whether a kind of thing is there: one that is, and one that is not."""
    there = [thing.kind for thing in scene.things]
    # A scene has few things, so some kind is always absent.
    absent = [kind for kind in SUBJECTS if kind not in there]
    for kinds, answer in ((there, "yes"), (absent, "no")):
        kind = kinds[int(generator.integers(len(kinds)))]
        article = "an" if kind[0] in "aeiou" else "a"
        yield Question(text=f"is there {article} {kind}?", answer=answer, topic="presence")
