"""Two stores of the same images as one, as ERNIE-ViL's reader for memes joins two extractions."""

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import ConfigError, FormatError
from diptych.features.store import FeatureStore
from diptych.types import Regions, RegionSource

Merge = Literal["vilio", "fair", "detector_only"]


class MergedStore:
    """A region of the whole image, then regions of `main`, then regions of `more`; at most `most` rows.

    The features of the whole image are the mean over both stores, in which each store's own mean counts as
    one region more (what the original does when it joins two whole images). A model that adds a region of
    the whole image is built with `whole_image=False`. Labels are left out: the whole image has none.

    Args:
        merge: who gives way when there are too many. `vilio`: regions of `main`, down to none where `more`
            has 99, which is what the submitted models saw. `fair`: each store keeps half of the rows, and
            what the other one leaves free. `detector_only` is for `open_stores` alone: `main` as it is.
    """

    def __init__(
        self, main: RegionSource, more: RegionSource, *, merge: Merge = "vilio", most: int = 100
    ) -> None:
        more.meta.require_like(main.meta, where=getattr(more, "path", "the second store"))
        self.main, self.more, self.merge, self.room = main, more, merge, most - 1
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
        """Both places, for messages."""
        return " or ".join(str(getattr(one, "path", "a store")) for one in (self.main, self.more))

    def __contains__(self, key: str) -> bool:
        return key in self.main and key in self.more

    def __getitem__(self, key: str) -> Regions:
        main, more = self.main[key], self.more[key]
        if main.size != more.size:
            raise FormatError(
                f"{self.path}: image {key} is {main.size} in one store and {more.size} in the other; one "
                "size in pixels was expected. Import both from detections on the same pictures."
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

    def _kept(self, main: int, more: int) -> tuple[int, int]:
        """How many regions of either store there is room for."""
        reserved = 0 if self.merge == "vilio" else min(main, self.room // 2)
        second = min(more, self.room - reserved)
        return min(main, self.room - second), second


def _mean(main: Regions, more: Regions) -> Float[ndarray, "1 F"]:
    shares = [len(one) + 1 for one in (main, more)]
    means = [one.features.sum(0, dtype=np.float32) / max(1, len(one)) for one in (main, more)]
    joined: Float[ndarray, "1 F"] = np.average(means, axis=0, weights=shares)[None].astype(np.float32)
    return joined


def open_stores(
    main: Path | str, more: Path | str | None = None, merge: str = "vilio"
) -> FeatureStore | MergedStore:
    """One store, or two as one.

    Args:
        merge: see `MergedStore`; `detector_only` leaves the second store alone, with a warning.

    Raises:
        ConfigError: there is no such way to merge, or the stores do not fit each other.
    """
    match merge:
        case "vilio" | "fair":
            store = FeatureStore(Path(main))
            return store if more is None else MergedStore(store, FeatureStore(Path(more)), merge=merge)
        case "detector_only":
            if more is not None:
                warnings.warn(
                    f"detector_only: regions come from {main} alone; {more} is not read.", stacklevel=2
                )
            return FeatureStore(Path(main))
    raise ConfigError(f"region_merge is {merge!r}; expected one of {get_args(Merge)}.")
