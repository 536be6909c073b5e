"""Parts of attention maps that pages and figures show: who looks (text or picture) at what."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.explain import MapLayer, PairMaps

VIEWS = {  # sides of queries and keys
    "text-regions": ("text", "regions"),
    "regions-text": ("regions", "text"),
    "text-text": ("text", "text"),
    "regions-regions": ("regions", "regions"),
}
ALL = "all"
NAMES = {
    "text-regions": "text \N{RIGHTWARDS ARROW} picture",
    "regions-text": "picture \N{RIGHTWARDS ARROW} text",
    "text-text": "text \N{RIGHTWARDS ARROW} text",
    "regions-regions": "picture \N{RIGHTWARDS ARROW} picture",
    ALL: "all",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The part of a layer's maps that a view shows.

    Args:
        rows: number of the place of each query; `columns`, of each key.
        number: number of the layer in `PairMaps.layers`.
    """

    layer: MapLayer
    number: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    weights: Float[ndarray, "H Q K"]


def blocks(pair: PairMaps, view: str, *, special: bool = False) -> list[Block]:
    """Return the blocks of a view that are not empty, in order of computation.

    Args:
        view: a key of `NAMES`.
        special: keep special positions; the view `all` always has them.
    """
    return list(_blocks(pair, view, special))


def _blocks(pair: PairMaps, view: str, special: bool) -> Iterator[Block]:
    for number, layer in enumerate(pair.layers):
        sides = VIEWS.get(view, (None, None))
        picked = []
        for places, side in zip((layer.queries, layer.keys), sides, strict=True):
            shown = [
                side is None or (pair.places[n].side == side and (special or not pair.places[n].special))
                for n in places
            ]
            picked.append(np.flatnonzero(shown))
        rows, columns = picked
        if len(rows) and len(columns):
            yield Block(
                layer=layer,
                number=number,
                rows=tuple(layer.queries[n] for n in rows),
                columns=tuple(layer.keys[n] for n in columns),
                # In two steps: two lists of indices at once would be paired element by element.
                weights=layer.weights[:, rows][:, :, columns],
            )


def first_view(pair: PairMaps) -> str:
    """Return the first view that shows anything: from text to picture, if there are both."""
    return next((view for view in VIEWS if blocks(pair, view)), ALL)


def strongest(shown: list[Block]) -> tuple[int, int]:
    """Return which block and which head has the largest share of its attention inside of the view."""
    # Rows sum to 1 over all keys, so the sum over the keys shown is the share that goes to them.
    shares = [block.weights.sum(2).mean(1) for block in shown]
    best = max(range(len(shown)), key=lambda number: shares[number].max())
    return best, int(shares[best].argmax())
