"""What would change a decision: hidden words and regions, and pictures and texts of other examples."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.data import Row, image_keys
from diptych.explain.evidence import Change, Evidence
from diptych.explain.variants import Varied
from diptych.types import Dataset, Example, RegionSource

MOST = 5  # players that are hidden together; more say little about any of them
CANDIDATES = 2000  # examples of a split among which neighbors are looked for


def smallest_change(variants: Varied, why: Evidence) -> Change | None:
    """Return the fewest players whose absence changes the answer; None if hiding `MOST` does not.

    The search is greedy, by contribution, so a smaller set may exist.
    """
    supporting = [
        n for n in np.argsort(-why.contributions.values).tolist() if why.contributions.values[n] > 0
    ]
    # Every set holds the one before, so all can be tried in one batch.
    sets = [supporting[: count + 1] for count in range(min(MOST, len(supporting)))]
    if not sets:
        return None
    flips = variants.outcomes([variants.without(one) for one in sets])[1]
    if not flips.any():
        return None
    # The first True, which is the smallest set.
    chosen = sets[int(flips.argmax())]
    for player in tuple(chosen):
        # What is not needed goes: an early member may have become superfluous by a later one.
        fewer = [one for one in chosen if one != player]
        if fewer and variants.outcomes([variants.without(fewer)])[1][0]:
            chosen = fewer
    return hidden(variants, chosen)


def hidden(variants: Varied, players: Sequence[int]) -> Change:
    """Return what the model makes of the example without some players."""
    values, flips = variants.outcomes([variants.without(players)])
    return Change(kind="hidden", players=tuple(players), value=float(values[0]), flips=bool(flips[0]))


def swaps(variants: Varied, dataset: Dataset, *, count: int = 3) -> list[Change]:
    """Return what the model makes of the picture with other texts, and of the text with other pictures.

    Other pictures are those of the examples with the most similar texts, and other texts those of the most
    similar pictures: first of all the memes that share one of the two exactly, and of which another label is
    expected.
    """
    example = variants.example
    others = [dataset[at] for at in range(min(len(dataset), CANDIDATES))]
    others = [other for other in others if other.id != example.id and len(other.pairs) == len(example.pairs)]
    if not others:
        return []
    pictures = _pictures([example, *others], variants.sources.regions)
    alike_pictures = pictures[1:] @ pictures[0]
    alike_texts = np.array([_alike(example, other) for other in others])
    found = []
    for kind, alike in (("picture", alike_texts), ("text", alike_pictures)):
        if kind == "picture" and not any(image_keys(pair) for pair in example.pairs):
            continue
        # Stable: ties keep the order of the split, so two calls show the same examples.
        for at in np.argsort(-alike, kind="stable")[:count]:
            found.append((kind, others[at], _swapped(example, others[at], kind)))
    rows: list[list[Row]] = [variants.read(one) for _, _, one in found]
    values, flips = variants.outcomes(rows)
    return [
        Change(
            kind="picture" if kind == "picture" else "text",
            value=float(value),
            flips=bool(flip),
            other=other.id,
            text=other.pairs[0].text,
        )
        for (kind, other, _), value, flip in zip(found, values, flips, strict=True)
    ]


def _swapped(example: Example, other: Example, kind: str) -> Example:
    pairs = zip(example.pairs, other.pairs, strict=True)
    if kind == "picture":
        return replace(
            example, pairs=tuple(replace(one, image=new.image, files=new.files) for one, new in pairs)
        )
    return replace(example, pairs=tuple(replace(one, text=new.text, text_b=new.text_b) for one, new in pairs))


def _alike(one: Example, other: Example) -> float:
    """Share of common words in all words of two texts."""
    ours, theirs = ({word for pair in some.pairs for word in pair.text.split()} for some in (one, other))
    # Jaccard's index: common words alone would favor long texts.
    return len(ours & theirs) / max(1, len(ours | theirs))


def _pictures(examples: Sequence[Example], regions: RegionSource | None) -> Float[ndarray, "N F"]:
    """A vector of length 1 per example, the mean feature of its regions; zeros if there is none."""
    if regions is None:
        return np.zeros((len(examples), 1))
    vectors = np.zeros((len(examples), max(1, regions.meta.feature_dim)))
    for row, example in zip(vectors, examples, strict=True):
        keys = [key for pair in example.pairs for key in image_keys(pair) if key in regions]
        features = [regions[key].features for key in keys if regions.count(key)]
        if features and features[0].shape[1]:
            row[:] = np.concatenate(features).mean(0, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return vectors
