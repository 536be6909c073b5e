"""Explanations against evidence that is known: memes of the miniature world say what decides them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.data import Sources, image_keys
from diptych.documents import check_shape, parse_json
from diptych.errors import FormatError
from diptych.explain.evidence import Evidence
from diptych.explain.players import overlap
from diptych.explain.variants import Variants
from diptych.files import require_file
from diptych.predict import GivenRegions
from diptych.types import Example, Regions

NAME = "truth.jsonl"
SHOWS = 0.5  # intersection over union from which a region shows the subject of a picture


class SubjectNode(TypedDict):
    """The thing in a picture that decides; its box is x1 y1 x2 y2 in pixels."""

    box: list[float]


class Truth(TypedDict):
    """Why a meme has its label: a line of `truth.jsonl`.

    `spans` are the characters of the text that decide. The siblings are the memes with the other picture or
    text, which have the other label.
    """

    id: str
    subject: SubjectNode
    spans: list[list[int]]
    sibling_picture: str
    sibling_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swaps:
    """Whether the answer changes with the picture or the text of a sibling, or with some of its regions.

    Args:
        subject: with the regions of its subject alone; `scenery`, with all others. None without regions.
    """

    picture: bool
    text: bool
    subject: bool | None
    scenery: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """Whether what counts most decides, by method: `word`, and `area` (None for a model without regions)."""

    word: dict[str, bool]
    area: dict[str, bool] | None


def read_truth(root: Path) -> dict[str, Truth]:
    """Read what decides each meme of a miniature world, by id; empty for any other folder.

    Raises:
        FormatError: a line is not as `diptych world` writes it.
    """
    path = root / NAME
    if not path.is_file():
        return {}
    found = {}
    with require_file(path, "what decides each meme").open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            one = check_shape(parse_json(line, where=where), Truth, where=where)
            if len(one["subject"]["box"]) != 4 or any(len(span) != 2 for span in one["spans"]):
                raise FormatError(f"{where}: expected a box of 4 numbers and spans of 2.")
            found[one["id"]] = one
    return found


def deciding(variants: Variants, truth: Truth) -> Bool[ndarray, " n"]:
    """Which players decide: words that overlap the spans, and groups with a region of the subject."""
    shows = _shows(_regions(variants, variants.example), truth) if _reads_regions(variants) else None
    return np.array(
        [
            any(
                first < stop and last > start
                for _, start, stop in one.spans
                for first, last in truth["spans"]
            )
            if one.of_text
            else shows is not None and any(overlap_of(box, variants, truth) for box in one.boxes)
            for one in variants.players
        ],
        bool,
    )


def overlap_of(box: tuple[float, ...], variants: Variants, truth: Truth) -> bool:
    """Whether a box of a player shows the subject; both are scaled to the picture."""
    size = np.array(_regions(variants, variants.example).size * 2)
    return bool(overlap(np.array(truth["subject"]["box"]) / size, np.array([box]))[0] >= SHOWS)


def swap_test(variants: Variants, truths: Mapping[str, Truth], memes: Mapping[str, Example]) -> Swaps:
    """Exchange what decides, and what does not, with that of the siblings; no relevance method is used."""
    example, truth = variants.example, truths[variants.example.id]
    other_picture, other_text = memes[truth["sibling_picture"]], memes[truth["sibling_text"]]
    (pair,) = example.pairs
    rows = [
        variants.read(
            replace(
                example,
                pairs=(
                    replace(pair, image=other_picture.pairs[0].image, files=other_picture.pairs[0].files),
                ),
            )
        ),
        variants.read(replace(example, pairs=(replace(pair, text=other_text.pairs[0].text),))),
    ]
    if _reads_regions(variants):
        own, other = _regions(variants, example), _regions(variants, other_picture)
        mine, theirs = _shows(own, truth), _shows(other, truths[other_picture.id])
        (key,) = image_keys(pair)
        for subject in (True, False):
            changed = _exchanged(
                own, np.flatnonzero(mine == subject), other, np.flatnonzero(theirs == subject)
            )
            source = GivenRegions({key: changed}, detector=variants.predictor.bundle.features)
            sources = Sources(regions=source, images=variants.sources.images)
            rows.append(variants.predictor.processor.rows(example, sources))
    picture, text, *some = variants.outcomes(rows)[1].tolist()
    subject_flips, scenery = some or (None, None)
    return Swaps(picture=picture, text=text, subject=subject_flips, scenery=scenery)


def _exchanged(own: Regions, places: ndarray, other: Regions, found: ndarray) -> Regions:
    """Regions with the contents of some replaced by those of others, in their own boxes."""
    if not len(found):
        return own
    taken = np.resize(found, len(places))
    changes = {}
    for name in ("features", "labels", "attributes"):
        mine, theirs = getattr(own, name), getattr(other, name)
        if mine is not None and theirs is not None:
            # The names, too: a model that reads them would see a contradiction.
            changes[name] = mine.copy()
            changes[name][places] = theirs[taken]
    return replace(own, **changes)


def needs_evidence(variants: Variants, decides: Bool[ndarray, " n"]) -> bool:
    """Whether the answer changes when all that decides is hidden; of a default, "why" has no answer."""
    return bool(variants.outcomes([variants.without(np.flatnonzero(decides).tolist())])[1][0])


def hits(why: Evidence, decides: Bool[ndarray, " n"], methods: tuple[str, str]) -> Hits:
    """Whether the word and the area that count most are among those that decide.

    Args:
        methods: names of the contributions and of the attention relevance.
    """
    rankings = {methods[0]: why.contributions.values}
    if why.relevance is not None:
        rankings[methods[1]] = why.relevance
    areas = np.array([one.kind == "regions" for one in why.players], bool)
    found: list[dict[str, bool]] = []
    for own in (why.of_text, areas):
        numbers = np.flatnonzero(own)
        found.append(
            {name: bool(decides[numbers[values[numbers].argmax()]]) for name, values in rankings.items()}
            if len(numbers)
            else {}
        )
    return Hits(word=found[0], area=found[1] or None)


def _reads_regions(variants: Variants) -> bool:
    # Boxes without features are cut from pixels, so there is nothing to exchange but pixels.
    source = variants.sources.regions
    return variants.predictor.processor.regions and source is not None and source.meta.feature_dim > 0


def _regions(variants: Variants, example: Example) -> Regions:
    assert variants.sources.regions is not None, "checked by _reads_regions"
    (key,) = image_keys(example.pairs[0])
    return variants.sources.regions[key]


def _shows(regions: Regions, truth: Truth) -> Bool[ndarray, " R"]:
    size = np.array(regions.size * 2)
    shown: Bool[ndarray, " R"] = (
        overlap(np.array(truth["subject"]["box"]) / size, np.asarray(regions.boxes, np.float64) / size)
        >= SHOWS
    )
    return shown
