"""Reduces maps over hundreds of positions to those that fit on a page."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from diptych.explain.attention import MapLayer, PairMaps
from diptych.explain.places import Place


def grouped(pair: PairMaps, *, tokens: int = 64, regions: int = 64) -> PairMaps:
    """Keep the first `tokens` tokens and the `regions` regions that are looked at most; add up the rest.

    The rest of each side becomes one special position at its end: what it is looked at is a sum, how it looks
    is a mean, so that the rows of all maps still sum to 1. Special positions are kept.
    """
    seen = np.zeros(len(pair.places))
    for layer in pair.layers:
        # Over all layers, so that the same regions are kept in every map.
        np.add.at(seen, np.array(layer.keys, int), layer.weights.sum((0, 1)))
    cut = {*_cut(pair, "text", tokens, None), *_cut(pair, "regions", regions, seen)}
    if not cut:
        return pair
    places: list[Place] = []
    moved = np.zeros(len(pair.places), int)
    for side in ("text", "regions"):
        rest = [n for n in sorted(cut) if pair.places[n].side == side]
        for number, place in enumerate(pair.places):
            if place.side == side and number not in cut:
                moved[number] = len(places)
                places.append(place)
        if rest:
            moved[rest] = len(places)
            what = "tokens" if side == "text" else "regions"
            places.append(
                Place(name=f"{len(rest)} more {what}", side=pair.places[rest[0]].side, special=True)
            )
    layers = tuple(_grouped(layer, moved) for layer in pair.layers)
    return replace(pair, places=tuple(places), layers=layers)


def _cut(pair: PairMaps, side: str, most: int, seen: Float[ndarray, " S"] | None) -> list[int]:
    """The places of a side to leave out: those that are seen least, or the last ones."""
    plain = [n for n, place in enumerate(pair.places) if place.side == side and not place.special]
    # The beginning of a text is kept, because a text with holes cannot be read.
    order = plain if seen is None else sorted(plain, key=lambda number: -seen[number])
    return order[most:]


def _grouped(layer: MapLayer, moved: Int[ndarray, " S"]) -> MapLayer:
    queries, rows = _memberships(layer.queries, moved)
    keys, columns = _memberships(layer.keys, moved)
    rows = rows / rows.sum(0, keepdims=True)  # a mean over queries, but a sum over keys
    # [q, Q] @ [H, Q, K] @ [K, k]: members of a group of queries are averaged, those of keys summed.
    return replace(layer, queries=queries, keys=keys, weights=rows.T @ layer.weights @ columns)


def _memberships(
    places: Sequence[int], moved: Int[ndarray, " S"]
) -> tuple[tuple[int, ...], Float[ndarray, "_ _"]]:
    """The new places, and which of the old ones belongs to which of them."""
    new, which = np.unique(moved[np.array(places, int)], return_inverse=True)
    return tuple(new.tolist()), np.eye(len(new), dtype=np.float32)[which]
