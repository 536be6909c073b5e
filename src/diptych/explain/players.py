"""What an explanation hides and shows: the words of a text and the regions of its picture."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.data import Processor, Row, Sources, image_keys
from diptych.explain.places import region_places, text_places
from diptych.nn import AttentionPlaces
from diptych.types import Example, Pair

Kind = Literal["word", "tag", "regions", "pixels", "vector"]
PICTURE = frozenset({"tag", "regions", "pixels"})  # tags are words, but about the picture
SAME = 0.5  # smallest intersection over union of regions that show one thing
BEYOND = -1  # index that stands for the features which `max_regions` cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """What is hidden and shown together: a word, or regions that show one thing.

    Args:
        name: the word, or class and attribute of the first region; empty if unknown.
        places: pair of the example, and number of the token or region in its row.
        spans: of a word: number of its text (0 or 1), first character, and the one after the last.
        boxes: of regions: x1 y1 x2 y2 as shares of the picture's width and height.
        picture: number of the picture that shows the regions, from 0.
    """

    kind: Kind
    name: str
    places: tuple[tuple[int, int], ...]
    spans: tuple[tuple[int, int, int], ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    picture: int = 0

    @property
    def of_text(self) -> bool:
        return self.kind not in PICTURE


def players_of(
    processor: Processor, example: Example, rows: Sequence[Row], sources: Sources, *, words: int, groups: int
) -> list[Player]:
    """Return the players of an example: first those of the text, then those of the picture.

    Pairs that share a text or a picture share its players. [CLS], [SEP] and whatever else the model adds are
    always shown.

    Args:
        rows: of the example's pairs, as the processor makes them.
        words: largest number of words; in longer texts, neighbors are joined.
        groups: largest number of groups of regions; the least confident regions join the nearest group.
    """
    text: dict[object, list[Player]] = {}
    picture: dict[object, list[Player]] = {}
    for number, (pair, row) in enumerate(zip(example.pairs, rows, strict=True)):
        for key, made, make in (
            # Tags are words about the picture, so texts with other tags are other texts.
            ((pair.text, pair.text_b, pair.image if processor.tags else None), text, _of_text),
            ((pair.image,), picture, _of_picture),
        ):
            # NLVR2 has one sentence with two pictures: hiding a word hides it in both pairs.
            if key in made:
                made[key] = [
                    replace(one, places=one.places + tuple((number, at) for _, at in one.places))
                    for one in made[key]
                ]
            else:
                found = make(processor, pair, row, sources, words if made is text else groups)
                made[key] = [
                    replace(one, places=tuple((number, at) for _, at in one.places)) for one in found
                ]
    return [one for made in (text, picture) for some in made.values() for one in some]


def _of_text(processor: Processor, pair: Pair, row: Row, sources: Sources, most: int) -> list[Player]:
    if row.vector is not None:
        return [Player(kind="vector", name="the whole text", places=((0, 0),))]
    if row.tokens is None:
        return []
    texts = processor.texts(pair, processor.regions_of(pair, sources.regions), sources.regions)
    players: list[Player] = []
    places = text_places(processor, row.tokens, texts, AttentionPlaces())
    for at, place in enumerate(places):
        # [CLS] and [SEP] have no meaning of their own, and no model was trained without them.
        if place.special:
            continue
        segment, (start, stop) = row.tokens.segments[at], row.tokens.offsets[at]
        kind: Kind = "tag" if segment and processor.tags else "word"
        one = Player(kind=kind, name=place.name, places=((0, at),), spans=((segment, start, stop),))
        if place.joins and players:
            players[-1] = _joined(players[-1], one, "")
        else:
            players.append(one)
    # Rounded up: 33 words of at most 32 are joined in pairs.
    step = -(-len(players) // most)
    return [
        _chain(some)
        for kind in ("word", "tag")
        if (some_kind := [one for one in players if one.kind == kind])
        for some in (some_kind[first : first + step] for first in range(0, len(some_kind), step))
    ]


def _joined(one: Player, other: Player, between: str) -> Player:
    (segment, start, stop), (also, first, last) = one.spans[-1], other.spans[0]
    # Pieces of a word are one span; words of two texts are not.
    spans = (
        (*one.spans[:-1], (segment, start, last))
        if segment == also and first >= stop
        else (one.spans + other.spans)
    )
    return replace(one, name=one.name + between + other.name, places=one.places + other.places, spans=spans)


def _chain(some: Sequence[Player]) -> Player:
    whole = some[0]
    for one in some[1:]:
        whole = _joined(whole, one, " ")
    return whole


def _of_picture(processor: Processor, pair: Pair, row: Row, sources: Sources, most: int) -> list[Player]:
    players = []
    if row.pixels is not None:
        players.append(Player(kind="pixels", name="the picture as a whole", places=((0, 0),)))
    if row.regions is None or not image_keys(pair):
        return players
    images = processor.regions_of(pair, sources.regions)
    places = [
        one
        for one in region_places(processor, pair, images, sources.regions, AttentionPlaces())
        if one.number
    ]
    first = len(row.regions) - len(places)  # the box around the whole picture is always shown
    for picture in range(len(images)):
        own = [at for at, place in enumerate(places) if place.picture == picture]
        boxes = np.array([places[at].box for at in own]).reshape(-1, 4)
        # Every picture gets an equal part of the groups, rounded up.
        for group in grouped_boxes(boxes, -(-most // len(images))):
            members = [own[at] for at in group]
            players.append(
                Player(
                    kind="regions",
                    name=places[members[0]].name,
                    places=tuple((0, at + first) for at in members),
                    boxes=tuple(places[at].box or () for at in members),
                    picture=picture,
                )
            )
    # Features that were cut off belong to the least confident group; they are in no box of the row.
    if row.beyond is not None and players and players[-1].kind == "regions":
        players[-1] = replace(players[-1], places=(*players[-1].places, (0, BEYOND)))
    return players


def grouped_boxes(boxes: Float[ndarray, "R 4"], most: int) -> list[list[int]]:
    """Group boxes that show one thing, in their order, which is that of confidence.

    A box joins the first group whose first box it overlaps by `SAME`. When there are `most` groups, it joins
    the one that it overlaps most.
    """
    groups: list[list[int]] = []
    for number, box in enumerate(boxes):
        overlaps = overlap(box, boxes[[group[0] for group in groups]]) if groups else np.zeros(0)
        best = int(overlaps.argmax()) if groups else 0
        if groups and (overlaps[best] >= SAME or len(groups) >= most):
            groups[best].append(number)
        else:
            groups.append([number])
    return groups


def overlap(box: Float[ndarray, " 4"], others: Float[ndarray, "R 4"]) -> Float[ndarray, " R"]:
    """Return the intersection over union of a box and others; 0 for boxes without area."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    # Clipped first: of boxes that lie apart in both directions, the product of two negative sides is
    # positive.
    shared = (high - low).clip(0).prod(1)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (box[None], others)]
    union = areas[0] + areas[1] - shared
    shares: Float[ndarray, " R"] = np.divide(shared, union, out=np.zeros(len(others)), where=union > 0)
    return shares


def hide(rows: Sequence[Row], hidden: Collection[Player], *, mask_id: int) -> list[Row]:
    """Return the rows of an example without some players.

    A hidden word becomes [MASK]; a hidden region is left out, as if the detector had not found it; hidden
    pixels and sentence vectors are zeros.
    """
    changed = []
    for number, row in enumerate(rows):
        places = {kind: set[int]() for kind in ("word", "tag", "regions", "pixels", "vector")}
        for player in hidden:
            places[player.kind] |= {at for pair, at in player.places if pair == number}
        changed.append(_without(row, places, mask_id))
    return changed


def _without(row: Row, places: dict[str, set[int]], mask_id: int) -> Row:
    if row.tokens is not None and (tokens := places["word"] | places["tag"]):
        ids = tuple(mask_id if at in tokens else one for at, one in enumerate(row.tokens.ids))
        row = replace(row, tokens=replace(row.tokens, ids=ids))
    if row.regions is not None and places["regions"]:
        # Left out and not zero: a vector of zeros would be one more thing to look at.
        kept = np.array([at for at in range(len(row.regions)) if at not in places["regions"]], int)
        mentions = row.mentions
        if mentions is not None:
            moved = np.full(len(row.regions) + 1, -1)  # the last entry serves the index -1
            moved[kept] = np.arange(len(kept))
            mentions = moved[mentions]
        row = replace(
            row,
            mentions=mentions,
            regions=row.regions.take(kept),
            boxes=None if row.boxes is None else row.boxes[kept],
            image_index=None if row.image_index is None else row.image_index[kept],
            beyond=None if BEYOND in places["regions"] else row.beyond,
        )
    if row.pixels is not None and places["pixels"]:
        row = replace(row, pixels=row.pixels * 0)
    if row.vector is not None and places["vector"]:
        row = replace(row, vector=row.vector * 0)
    return row
