"""Where the models of the service find the regions of a picture: by key, by a detector, or on a grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL.Image import Image

from diptych.data import BoxSource, Processor, open_regions
from diptych.detect.extractor import Extractor, ExtractSettings, Item, build_extractor
from diptych.errors import ConfigError, FormatError
from diptych.features import MergedStore
from diptych.predict import GivenRegions
from diptych.serve.problems import Problem
from diptych.types import FeatureMeta, Regions, RegionSource

HERE = "picture"  # key of a picture without one
POINTER = "/image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meme:
    """What is scored.

    Args:
        text: the given or the read one; empty if there is none.
        image: the picture as upright RGB; None if there is none, or only its key.
        key: of the picture in the feature stores.
        found: regions that detectors have found in it, which the members of a study share.
    """

    text: str = ""
    image: Image | None = None
    key: str | None = None
    found: dict[str, Regions] = field(default_factory=dict)


Find = Callable[[Meme], RegionSource]
"""Returns a source that has the regions of a meme; raises `Problem` where there are none."""


class Detectors:
    """The detectors behind the stores that models were trained on, each loaded once.

    Args:
        passes: see `diptych.study.extractions`.
    """

    def __init__(self, passes: list[tuple[ExtractSettings, dict[str, str]]], *, device: str) -> None:
        self.passes: list[tuple[ExtractSettings, dict[str, str], Extractor]] = [
            (settings, rules, build_extractor(settings, device=device)) for settings, rules in passes
        ]
        self._busy = Lock()

    def __call__(self, meme: Meme) -> dict[str, Regions]:
        """The regions of a meme's picture by the names of the stores.

        Raises:
            Problem: there is no picture, or it is too long for the detector.
        """
        if meme.image is None:
            raise Problem(
                "invalid-request", "the model finds regions in pictures; send one.", pointer=POINTER
            )
        # One at a time: each needs the memory of all its feature maps.
        with self._busy:
            for settings, rules, extractor in [] if meme.found else self.passes:
                try:
                    item = Item(HERE, extractor.prepare(meme.image), None)
                except FormatError as error:
                    raise Problem("bad-picture", str(error), pointer=POINTER) from error
                by_rule = dict(zip(settings.rules, extractor([item])[0], strict=True))
                meme.found.update(
                    {name: _stored(by_rule[rule], settings.dtype) for name, rule in rules.items()}
                )
        return meme.found


def _stored(regions: Regions, dtype: str) -> Regions:
    # As a store keeps them: the model was trained on numbers that were rounded so.
    return replace(regions, features=regions.features.astype(np.dtype(dtype)))


def find_regions(
    processor: Processor,
    places: tuple[Path | str | None, Path | str | None],
    *,
    merge: str | None,
    names: tuple[str | None, str | None] = (None, None),
    detect: Detectors | None = None,
    meta: FeatureMeta | None = None,
) -> Find | None:
    """Choose how a model finds regions; None for a model that reads none.

    Args:
        places: the stores that it was trained on, or those given instead.
        merge: rule of the merge of two stores.
        names: of the stores, as `detect` calls them.
        detect: finds regions in the picture; then the stores are not read.
        meta: of the training features.

    Raises:
        ConfigError: the model reads regions, and there is no source of them.
    """
    if not processor.regions:
        return None
    place, more = places
    if processor.grid is not None:
        return _on_grid(processor.grid)
    if detect is not None:
        return _by_detector(detect, names, merge, meta)
    # Boxes from a file are those of the data of training; new pictures have none.
    if place is None or Path(place).suffix == ".jsonl":
        raise ConfigError(
            "the model reads regions, but no source is known; add --features FOLDER for pictures by key, or "
            "--weights DETECTOR=FILE to find regions in new pictures."
        )
    source = open_regions(processor, place, {}, more=more, merge=merge or "vilio")
    assert source is not None, "the processor reads regions"
    if meta is not None:
        source.meta.require_like(meta, where=getattr(source, "path", "the regions"))
    return ByKey(source)


class ByKey:
    """Looks regions up by the key of a meme."""

    def __init__(self, source: RegionSource) -> None:
        self.source = source

    def __iter__(self) -> Iterator[str]:
        """The keys, from which the warm-up takes one."""
        first: Any = getattr(self.source, "main", self.source)
        return (str(key) for key in first if key in self.source)

    def __call__(self, meme: Meme) -> RegionSource:
        if meme.key is None:
            raise Problem(
                "invalid-request",
                "the model reads regions, and this service has them by key only; send image.key. "
                "Start it with --weights to find regions in new pictures.",
                pointer=POINTER,
            )
        # In the index of the store; a key is never a part of a path.
        if meme.key not in self.source:
            raise Problem("invalid-request", "the store has no such key.", pointer=f"{POINTER}/key")
        return self.source


def _on_grid(grid: Sequence[int]) -> Find:
    def find(meme: Meme) -> RegionSource:
        if meme.image is None:
            raise Problem("invalid-request", "the model reads pictures; send one.", pointer=POINTER)
        return BoxSource({meme.key or HERE: meme.image}, grid=grid)

    return find


def _by_detector(
    detect: Detectors,
    names: tuple[str | None, str | None],
    merge: str | None,
    meta: FeatureMeta | None,
) -> Find:
    def find(meme: Meme) -> RegionSource:
        found = detect(meme)
        main, *more = (
            GivenRegions({meme.key or HERE: found[name]}, detector=meta) for name in names if name is not None
        )
        if not more or merge == "detector_only":
            return main
        return MergedStore(main, more[0], merge="fair" if merge == "fair" else "vilio")

    return find
