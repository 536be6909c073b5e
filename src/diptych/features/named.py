"""Combines several feature stores, addressed by name, into one source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from diptych.errors import ConfigError
from diptych.types import Regions, RegionSource


class NamedStores:
    """Regions by `NAME:KEY`, where NAME is that of a store, so that keys of two stores never collide.

    A key without a name is allowed if there is only one store.

    Args:
        stores: stores of the same detector. Several names may refer to the same store.

    Raises:
        ConfigError: there is no store, or the stores come from different detectors or have other widths.
    """

    def __init__(self, stores: Mapping[str, RegionSource]) -> None:
        if not stores:
            raise ConfigError("features names no store; set features.NAME=FOLDER.")
        if odd := [name for name in stores if not name or ":" in name]:
            raise ConfigError(f"features has the name {odd[0]!r}; expected names without ':'.")
        self.stores = dict(stores)
        different = {id(store): store for store in stores.values()}  # without further names of a store
        self._only, *others = different.values()
        self._several = bool(others)
        for other in others:
            other.meta.require_like(self._only.meta, where=getattr(other, "path", "a feature store"))
        self.meta = self._only.meta
        if others:
            sums = [[name, store.meta.checksum] for name, store in sorted(self.stores.items())]
            rules = dict.fromkeys(store.meta.box_rule for store in different.values())
            self.meta = replace(
                self.meta,
                box_rule=" or ".join(rules),
                count=sum(store.meta.count for store in different.values()),
                checksum=sha256(repr(sums).encode()).hexdigest(),
            )

    @property
    def path(self) -> str:
        """All folders, for messages."""
        places = {str(getattr(store, "path", "a store")): None for store in self.stores.values()}
        return " or ".join(places)

    def __getitem__(self, key: str) -> Regions:
        store, inner = self._find(key)
        return store[inner]

    def __contains__(self, key: str) -> bool:
        store, inner = self._find(key)
        return inner in store

    def count(self, key: str) -> int:
        store, inner = self._find(key)
        return store.count(inner)

    def counts_of(self, keys: Sequence[str]) -> Int[ndarray, " N"]:
        """Number of regions of each image; -1 if it is not in the store."""
        return self._asked("counts_of", lambda store, key: store.count(key) if key in store else -1, keys)

    def rows_of(self, keys: Sequence[str]) -> Int[ndarray, " N"]:
        """Row of each image in its own store; -1 if it is not in the store."""
        return self._asked("rows_of", lambda store, key: 0 if key in store else -1, keys)

    def _asked(
        self, method: str, each: Callable[[RegionSource, str], int], keys: Sequence[str]
    ) -> Int[ndarray, " N"]:
        """What every store says of its keys: all at once by a method that not every source has, or `each`."""
        asked: dict[int, tuple[RegionSource, list[int], list[str]]] = {}
        for place, key in enumerate(keys):
            store, inner = self._find(key)
            _, places, inners = asked.setdefault(id(store), (store, [], []))
            places.append(place)
            inners.append(inner)
        result = np.full(len(keys), -1, np.int64)
        # one call per store, since such a method is much faster than a call per key
        for store, places, inners in asked.values():
            many: Callable[[Sequence[str]], ndarray] | None = getattr(store, method, None)
            result[places] = [each(store, key) for key in inners] if many is None else many(inners)
        return result

    def _find(self, key: str) -> tuple[RegionSource, str]:
        name, sign, inner = key.partition(":")
        if sign and name in self.stores:  # else the colon is part of the key
            return self.stores[name], inner
        if self._several:
            raise ConfigError(
                f"features names the stores {', '.join(self.stores)}; image {key!r} belongs to none of them. "
                "A data set names the store of its images: see `stores` of diptych.datasets.Mix."
            )
        return self._only, key
