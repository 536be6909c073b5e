"""Names the positions of attention maps: tokens by the characters they cover, regions by their class."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from diptych.data import Processor
from diptych.nn import AttentionPlaces
from diptych.types import FeatureMeta, Pair, Regions, RegionSource, Tokens

CONTINUES = "##"  # how WordPiece marks a token inside of a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One position of an attention map.

    Args:
        name: the characters that a token covers, as the user wrote them; class and attribute of a region,
            empty if unknown; of special positions, their token or a description.
        special: whether it is neither part of the text nor of the picture, such as [CLS], [SEP], END and the
            region for the whole image.
        piece: token of the vocabulary; None for regions.
        joins: whether the token continues the word of the token before.
        number: of a region, from 1; 0 for all others.
        box: x1 y1 x2 y2 of a region, as shares of the picture's width and height.
        picture: number of the picture that shows the region, from 0.
    """

    name: str
    side: Literal["text", "regions"]
    special: bool = False
    piece: str | None = None
    joins: bool = False
    number: int = 0
    box: tuple[float, ...] | None = None
    picture: int = 0


def text_places(
    processor: Processor, tokens: Tokens, texts: tuple[str, str | None], plan: AttentionPlaces
) -> list[Place]:
    """Name the tokens of a row, and what the model inserts after the first of them."""
    assert processor.text is not None, "a row with tokens has a tokenizer"
    vocabulary, special = processor.text.tokens, processor.text.special_ids
    places = []
    for number, segment, (start, stop) in zip(tokens.ids, tokens.segments, tokens.offsets, strict=True):
        piece = vocabulary[number]
        # Special tokens cover no characters, unless the user wrote them.
        covered = (texts[segment] or "")[start:stop]
        places.append(
            Place(
                name=covered or piece,
                side="text",
                special=number in special,
                piece=piece,
                joins=piece.startswith(CONTINUES),
            )
        )
    # Where the model itself inserts a token, so that numbers agree with the columns of its maps.
    return [*places[:1], *_added(plan.after_first, "text"), *places[1:]]


def region_places(
    processor: Processor,
    pair: Pair,
    images: Sequence[Regions],
    source: RegionSource | None,
    plan: AttentionPlaces,
) -> list[Place]:
    """Name the regions of a row, and what processor and model put before and after them.

    Args:
        images: regions of each image of the pair.
    """
    meta = FeatureMeta(feature_dim=0) if source is None else source.meta
    numbers = count(1)
    places = [
        Place(
            name=region_words(regions, row, meta),
            side="regions",
            number=next(numbers),
            # Detectors may put a corner a little outside of the picture. `size * 2` is width, height, width,
            # height.
            box=tuple(np.clip(box / (regions.size * 2), 0, 1).tolist()),
            picture=picture,
        )
        for picture, regions in enumerate(images)
        for row, box in enumerate(regions.boxes.astype(np.float64))
    ]
    whole = ("whole image",) if processor.whole_image else ()
    # What the model adds lies outside of what the processor adds.
    before = _added((*plan.before_regions, *whole), "regions")
    return [*before, *places, *_added(plan.after_regions, "regions")]


def _added(names: Sequence[str], side: Literal["text", "regions"]) -> list[Place]:
    return [Place(name=name, side=side, special=True) for name in names]


def region_words(regions: Regions, row: int, meta: FeatureMeta) -> str:
    """Attribute and class of a region, such as `red dog`; empty if the detector names neither."""
    words = [
        _name(names, int(values[row]), what)
        for names, values, what in (
            (meta.attributes, regions.attributes, "attribute"),
            (meta.classes, regions.labels, "class"),
        )
        if values is not None
    ]
    return " ".join(words)


def _name(names: Sequence[str], index: int, what: str) -> str:
    """Name of a class or attribute; of several synonyms, the first."""
    # Features of another detector may hold numbers beyond the list of names.
    return names[index].partition(",")[0] if 0 <= index < len(names) else f"{what} {index}"
