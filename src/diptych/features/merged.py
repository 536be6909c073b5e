"""Combines two stores of the same images, as ERNIE-ViL's reader for memes combines two extractions."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from diptych.errors import ConfigError, FormatError
from diptych.features.store import FeatureStore
from diptych.types import Regions, RegionSource

Merge = Literal["vilio", "fair", "detector_only"]


class MergedStore:
    """A whole-image region, then regions of `main`, then regions of `more`; at most `most` rows.

    The features of the whole-image region are the mean over both stores, in which each store's own mean
    counts as one more region: the original merges two whole-image regions. Build models that add a
    whole-image region with `whole_image=False`. There are no labels, because the whole image has none.

    Args:
        merge: which regions are dropped if there are too many. `vilio` drops those of `main`, down to none if
            `more` has 99; the submitted models were trained this way. `fair` gives each store half of the
            rows, plus the rows that the other leaves free. `detector_only` is for `open_stores` only.
    """

    def __init__(
        self, main: RegionSource, more: RegionSource, *, merge: Merge = "vilio", most: int = 100
    ) -> None:
        more.meta.require_like(main.meta, where=getattr(more, "path", "the second store"))
        self.main, self.more, self.merge, self.room = main, more, merge, most - 1
        # A run that resumes must notice another merge of the same stores, too.
        both = f"{merge} {most} {main.meta.checksum} {more.meta.checksum}"
        self.meta = replace(
            main.meta,
            box_rule=f"{main.meta.box_rule} and {more.meta.box_rule}, {merge}",
            classes=(),
            attributes=(),
            dtype="float32",
            checksum=hashlib.sha256(both.encode()).hexdigest(),
        )

    @property
    def path(self) -> str:
        """Both folders, for messages."""
        return " or ".join(str(getattr(store, "path", "a store")) for store in (self.main, self.more))

    def __contains__(self, key: str) -> bool:
        return key in self.main and key in self.more

    def __getitem__(self, key: str) -> Regions:
        main, more = self.main[key], self.more[key]
        if main.size != more.size:
            raise FormatError(
                f"{self.path}: image {key} is {main.size} in one store, {more.size} in the other; expected "
                "equal sizes in pixels. Import both from detections on the same images."
            )
        first, second = self._kept(len(main), len(more))
        whole = np.array([[0, 0, *main.size]], np.float32)
        return Regions(
            features=np.concatenate([_mean(main, more), main.features[:first], more.features[:second]]),
            boxes=np.concatenate([whole, main.boxes[:first], more.boxes[:second]]),
            size=main.size,
        )

    def count(self, key: str) -> int:
        return 1 + sum(self._kept(self.main.count(key), self.more.count(key)))

    def rows_of(self, keys: Sequence[str]) -> Int[ndarray, " N"]:
        """Number of each image in the order of `main`; -1 of one that is not there."""
        known: Callable[[Sequence[str]], ndarray] = getattr(
            self.main, "rows_of", lambda some: np.arange(len(some))
        )
        return known(keys)

    def _kept(self, main: int, more: int) -> tuple[int, int]:
        """How many regions of each store fit."""
        # `more` is served first, from what is not reserved for `main`; `main` gets the rest
        # Example with room 99, 36 and 100 regions: `vilio` keeps 0 and 99, `fair` 36 and 63.
        reserved = 0 if self.merge == "vilio" else min(main, self.room // 2)
        second = min(more, self.room - reserved)
        return min(main, self.room - second), second


def _mean(main: Regions, more: Regions) -> Float[ndarray, "1 F"]:
    # the mean over all regions of both stores and the two whole-image regions, which are means themselves
    shares = [len(regions) + 1 for regions in (main, more)]
    means = [regions.features.sum(0, dtype=np.float32) / max(1, len(regions)) for regions in (main, more)]
    joined: Float[ndarray, "1 F"] = np.average(means, axis=0, weights=shares)[None].astype(np.float32)
    return joined


def open_stores(
    main: Path | str, more: Path | str | None = None, merge: str = "vilio"
) -> FeatureStore | MergedStore:
    """Open one store, or two as one.

    Args:
        merge: see `MergedStore`; `detector_only` does not read the second store, and warns about that.

    Raises:
        ConfigError: `merge` is unknown, or the stores come from different detectors or have other widths.
    """
    match merge:
        case "vilio" | "fair":
            store = FeatureStore(Path(main))
            return store if more is None else MergedStore(store, FeatureStore(Path(more)), merge=merge)
        case "detector_only":
            if more is not None:
                warnings.warn(
                    f"detector_only: regions come from {main} only; {more} is not read.", stacklevel=2
                )
            return FeatureStore(Path(main))
    raise ConfigError(f"region_merge is {merge!r}; expected one of {get_args(Merge)}.")
