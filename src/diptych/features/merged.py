"""Two feature stores as one: ERNIE-ViL's memes read the boxes of a second extraction beside the first."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from diptych.errors import ConfigError
from diptych.features.store import FeatureStore
from diptych.types import Regions, RegionSource

MERGES = ("vilio", "main_first")


class MergedStore:
    """The whole image, then regions of `main`, then regions of `more`; at most `most` rows.

    The whole image is a region of its own: the mean of both stores' means, each counted with one row more
    than it has regions, as in the original reader. A model that adds the whole image itself is built with
    `whole_image=False`.

    Args:
        merge: who gives way when there are too many. `vilio`: `main`, to the last one where `more` has 99
            regions or more, and the checkpoints of the challenge saw it so. `main_first`: `more`.
    """

    def __init__(
        self, main: RegionSource, more: RegionSource, *, merge: str = "vilio", most: int = 100
    ) -> None:
        if merge not in MERGES:
            raise ConfigError(f"region_merge is {merge!r}; expected one of {MERGES}.")
        more.meta.require_like(main.meta, where=getattr(more, "path", "the second store"))
        self.main, self.more, self.merge, self.most = main, more, merge, most
        self.path = getattr(main, "path", None)
        both = f"{merge} {most} {main.meta.checksum} {more.meta.checksum}"
        self.meta = replace(
            main.meta,
            box_rule=f"{main.meta.box_rule} and {more.meta.box_rule}, {merge}",
            checksum=hashlib.sha256(both.encode()).hexdigest(),
        )

    def __contains__(self, key: str) -> bool:
        return key in self.main and key in self.more

    def __getitem__(self, key: str) -> Regions:
        main, more = self.main[key], self.more[key]
        shares = [(one.features.astype(np.float32), len(one) + 1) for one in (main, more)]
        total = sum(rows for _, rows in shares)
        whole = sum(
            (features.mean(0) * rows for features, rows in shares if len(features)), np.float32(0)
        ) / np.float32(total)
        first, second = self._room(len(main), len(more))
        features = [
            np.broadcast_to(whole, (1, main.features.shape[1])),
            shares[0][0][:first],
            shares[1][0][:second],
        ]
        box = np.array([[0, 0, *main.size]], np.float32)
        return Regions(
            features=np.concatenate(features).astype(np.float32),
            boxes=np.concatenate([box, main.boxes[:first], more.boxes[:second]]),
            size=main.size,
        )

    def count(self, key: str) -> int:
        return 1 + sum(self._room(self.main.count(key), self.more.count(key)))

    def _room(self, main: int, more: int) -> tuple[int, int]:
        """How many regions of either store there is room for, beside the whole image."""
        if self.merge == "main_first":
            first = min(main, self.most - 1)
            return first, min(more, self.most - 1 - first)
        second = min(more, self.most - 1)
        return min(main, self.most - 1 - second), second


def open_stores(
    main: Path | str, more: Path | str | None = None, merge: str = "vilio"
) -> FeatureStore | MergedStore:
    """One store, or two as one."""
    store = FeatureStore(Path(main))
    return store if more is None else MergedStore(store, FeatureStore(Path(more)), merge=merge)
