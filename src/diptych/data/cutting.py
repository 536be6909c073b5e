"""How the images of a row are joined, and how VL-BERT cuts rows: text and regions share one limit."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Int
from numpy import concatenate, ndarray, where

from diptych.types import OPTIONAL_REGION_FIELDS, Regions, Tokens


def shares(tokens: int, regions: int, most: int) -> tuple[int, int]:
    """Numbers of tokens and regions of a row that are kept, as in VL-BERT's readers of captions.

    While there are more than `most` together, the row loses a region if it has more regions than tokens, else
    a token; two tokens and one region always stay.
    """
    while tokens + regions > most:
        if regions > 1 and (regions > tokens or tokens <= 2):
            regions -= 1
        elif tokens > 2:
            tokens -= 1
        else:
            break
    return tokens, regions


def cut_row(
    tokens: Tokens, images: Sequence[Regions], *, most: int, whole: int
) -> tuple[Tokens, list[Regions]]:
    """Cut a row to `shares`: the first tokens stay with the last one, `[SEP]`, and the first regions.

    Args:
        whole: 1 if the model adds the region of the whole image, which takes one of the `most` places.
    """
    count = sum(map(len, images))
    if not count:
        return tokens, [*images]
    keep, left = shares(len(tokens), count + whole, most)
    left -= whole
    cut = []
    for regions in images:
        cut.append(regions.first(left))
        left -= len(cut[-1])
    if keep < len(tokens):
        parts = (tokens.ids, tokens.segments, tokens.offsets)
        ids, segments, offsets = ((*part[: keep - 1], part[-1]) for part in parts)
        tokens = Tokens(ids=ids, segments=segments, offsets=offsets)
    return tokens, cut


def without_ends(tokens: Tokens) -> Tokens:
    """Remove the first and the last token, which are `[CLS]` and `[SEP]`."""
    return Tokens(ids=tokens.ids[1:-1], segments=tokens.segments[1:-1], offsets=tokens.offsets[1:-1])


def in_one_segment(tokens: Tokens) -> Tokens:
    """Give all tokens the segment 0."""
    return replace(tokens, segments=(0,) * len(tokens))


def lengths_of_rows(
    text: Int[ndarray, " P"], regions: Int[ndarray, " P"], *, most: int | None, whole: int
) -> Int[ndarray, " P"]:
    """Lengths of rows after `shares`; rows without regions are not cut.

    Args:
        text: numbers of tokens.
        regions: numbers of regions, with the region of a whole image that the processor adds.
        whole: as in `cut_row`.
    """
    total: ndarray = text + regions
    if most is None:
        return total
    cut: ndarray = where((regions > 0) & (total > most - whole), most - whole, total)
    return cut


def joined(images: list[Regions]) -> Regions:
    """Concatenate the regions of several images; the size is that of the first image."""
    if len(images) == 1:
        return images[0]
    shared = [
        name
        for name in OPTIONAL_REGION_FIELDS
        if all(getattr(regions, name) is not None for regions in images)
    ]
    return Regions(
        size=images[0].size,
        **{
            name: concatenate([getattr(regions, name) for regions in images])
            for name in ("features", "boxes", *shared)
        },
    )
