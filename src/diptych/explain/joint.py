"""Variants of an example as all members of a blend read it, so that the blend itself is explained."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.data import Row
from diptych.explain.players import Player, grouped_boxes
from diptych.explain.variants import Variants, Varied
from diptych.predictions import Predictions
from diptych.types import Example

Blend = Callable[[Mapping[str, Predictions]], Predictions]


class JointVariants(Varied):
    """Variants of one example for a blend of several models.

    Each player is hidden from all members at once: a word where any of them reads it, and all boxes that show
    one thing, also those of different stores. So values are those of the blend, and not of one member.

    Args:
        members: the same example as each model reads it.
        blend: from the members' predictions of some variants to those of the blend.

    Raises:
        ConfigError: the blend has no scores.
    """

    def __init__(self, members: Mapping[str, Variants], blend: Blend) -> None:
        self.members, self._blend = dict(members), blend
        # Rows of all members, one after the other; pair numbers of the players count through them.
        ends = np.cumsum([0, *(len(member.rows) for member in self.members.values())]).tolist()
        self._parts = [slice(*ends[number : number + 2]) for number in range(len(self.members))]
        # Of a member that reads regions, if there is one: similar pictures are found by them.
        some = max(self.members.values(), key=lambda member: member.sources.regions is not None)
        rows = [row for member in self.members.values() for row in member.rows]
        super().__init__(some.example, some.sources, some.budget, rows=rows, players=self._together())

    @property
    def name(self) -> str:
        return "the blend"

    def predict(self, examples: Sequence[Sequence[Row]]) -> Predictions:
        return self._blend(self.of_members(examples))

    def of_members(self, examples: Sequence[Sequence[Row]]) -> dict[str, Predictions]:
        """Return what each member makes of some variants."""
        return {
            name: member.predict([example[part] for example in examples])
            for part, (name, member) in zip(self._parts, self.members.items(), strict=True)
        }

    def without(self, players: Collection[int]) -> list[Row]:
        some = [self.players[number] for number in players]
        rows: list[Row] = []
        for part, member in zip(self._parts, self.members.values(), strict=True):
            own = [_within(one, part) for one in some]
            # By its own tokenizer: numbers of [MASK] differ.
            rows += member.hiding([one for one in own if one.places])
        return rows

    def read(self, example: Example) -> list[Row]:
        return [row for member in self.members.values() for row in member.read(example)]

    def relevance(self) -> Float[ndarray, " n"] | None:
        # Its sizes have no common scale, so means over members would be those of the loudest one.
        return None

    def _together(self) -> list[Player]:
        """The players of all members, with those that hide the same thing joined."""
        every = [
            replace(one, places=tuple((pair + part.start, at) for pair, at in one.places))
            for part, member in zip(self._parts, self.members.values(), strict=True)
            for one in member.players
        ]
        most = next(iter(self.members.values())).budget.groups
        found = [_joined(some) for some in _groups(every, self._parts, most)]
        return sorted(found, key=lambda one: not one.of_text)  # stable: the text before the picture


def _within(player: Player, part: slice) -> Player:
    """The places of a player in the rows of one member, counted from its first row."""
    own = tuple((pair - part.start, at) for pair, at in player.places if part.start <= pair < part.stop)
    return replace(player, places=own)


def _groups(players: Sequence[Player], parts: Sequence[slice], most: int) -> Iterator[list[Player]]:
    """Players that hide the same thing; of each picture, at most `most` groups of regions."""
    # Tokenizers cut words in different places; what overlaps is hidden together.
    words = sorted((one for one in players if one.kind == "word"), key=lambda one: one.spans[0])
    group: list[Player] = []
    for word in words:
        if group and word.spans[0] >= _end(group):
            yield group
            group = []
        group.append(word)
    if group:
        yield group
    for kind in ("vector", "pixels"):
        if some := [one for one in players if one.kind == kind]:
            yield some
    # The same object name of two members is the same; the second one of a member is another object.
    tags: dict[tuple[str, int], list[Player]] = {}
    for part in parts:
        seen: dict[str, int] = {}
        for one in players:
            if one.kind == "tag" and _within(one, part).places:
                seen[one.name] = seen.get(one.name, 0) + 1
                tags.setdefault((one.name, seen[one.name]), []).append(one)
    yield from tags.values()
    areas = [one for one in players if one.kind == "regions"]
    for picture in sorted({one.picture for one in areas}):
        own = [one for one in areas if one.picture == picture]
        for numbers in grouped_boxes(np.array([one.boxes[0] for one in own]), most):
            yield [own[number] for number in numbers]


def _end(group: Sequence[Player]) -> tuple[int, int, int]:
    """Where the last span of some words ends, as the smallest span that begins there."""
    segment, stop = max((span[0], span[2]) for one in group for span in one.spans)
    return (segment, stop, 0)


def _joined(some: Sequence[Player]) -> Player:
    """One player in place of several."""
    # The longest name: where one tokenizer has "can't", another has three words.
    first = max(some, key=lambda one: len(one.name))
    return replace(
        first,
        places=tuple(place for one in some for place in one.places),
        spans=tuple(_covered(some)),
        # Once each: members of one store have the same boxes.
        boxes=tuple(dict.fromkeys(box for one in some for box in one.boxes)),
    )


def _covered(some: Sequence[Player]) -> Iterator[tuple[int, int, int]]:
    """One span per text, for a page must print every character once."""
    spans = [span for one in some for span in one.spans]
    for segment in sorted({span[0] for span in spans}):
        own = [span for span in spans if span[0] == segment]
        yield segment, min(span[1] for span in own), max(span[2] for span in own)
