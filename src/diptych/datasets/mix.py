"""Several data sets as one."""

import math
from bisect import bisect_right
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from diptych.datasets.placed import PlacedRows, placed
from diptych.datasets.rows import Count, Rows
from diptych.errors import ConfigError, nearest
from diptych.predictions import Predictions
from diptych.types import Dataset, Example


class Mix:
    """Data sets one after the other, under the names of its members.

    The id of an example is `MEMBER/ID`, and its image key `STORE:KEY`, so that neither occurs twice. Where
    `features` is one store, it holds the pictures of all members; where it names several, those of a member
    are in the store of its name, or of the name that `stores` has for it.

    Args:
        members: data sets by name.
        weights: how often an epoch takes each example of a member: 0.5 draws half of them, anew for every
            epoch; 2 takes all of them twice. 1 where not named; None trains on every example once.
        stores: the feature store of a member.

    Raises:
        ConfigError: there is no member, or a name or a weight cannot be.
    """

    def __init__(
        self,
        members: Mapping[str, Dataset],
        *,
        weights: Mapping[str, int | float] | None = None,
        stores: Mapping[str, str] | None = None,
    ) -> None:
        if not members:
            raise ConfigError("a mix has no members; expected one data set or more, by name.")
        for what, named in (("weights", weights), ("stores", stores)):
            if unknown := [name for name in named or () if name not in members]:
                raise ConfigError(
                    f"{what} of the mix name {unknown[0]!r}; its members are {', '.join(members)}."
                    f"{nearest(unknown[0], members)}"
                )
        if odd := [name for name in (*members, *(stores or {}).values()) if not name or ":" in name]:
            raise ConfigError(f"a member or store is called {odd[0]!r}; expected a name without ':'.")
        if odd := [name for name, weight in (weights or {}).items() if not 0 < weight < math.inf]:
            raise ConfigError(f"the weight of {odd[0]!r} is {(weights or {})[odd[0]]}; expected more than 0.")
        self.members, self.weights = dict(members), weights
        self.names = tuple(members)
        self._stores = {
            name: None if getattr(one, "stores", ()) else (stores or {}).get(name, name)
            for name, one in members.items()
        }
        self._ends = [*accumulate(map(len, members.values()))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]
        number = bisect_right(self._ends, row)
        name = self.names[number]
        before = self._ends[number - 1] if number else 0
        return placed(self.members[name][row - before], self._stores[name], f"{name}/")

    @property
    def rows(self) -> "MixedRows | None":
        """The columns of all members, if all have some."""
        found = []
        for name, one in self.members.items():
            rows = getattr(one, "rows", None)
            if rows is None:
                return None
            found.append(PlacedRows(rows, self._stores[name], f"{name}/"))
        return MixedRows(found)

    @property
    def draws(self) -> list[tuple[int, int]] | None:
        """Of each member, the number of examples and how many an epoch takes."""
        if self.weights is None:
            return None
        counts = {name: len(one) for name, one in self.members.items() if len(one)}
        weights = self.weights
        return [(count, max(1, round(weights.get(name, 1) * count))) for name, count in counts.items()]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the feature stores of all members."""
        own = (name for one in self.members.values() for name in getattr(one, "stores", ()))
        return tuple(dict.fromkeys([*own, *(name for name in self._stores.values() if name is not None)]))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of all members, in order of first appearance."""
        every = (label for one in self.members.values() for label in getattr(one, "labels", ()))
        return tuple(dict.fromkeys(every))

    @property
    def files(self) -> tuple[Path, ...]:
        """What all members were read from."""
        return tuple(file for one in self.members.values() for file in getattr(one, "files", ()))

    @property
    def images(self) -> Mapping[str, Path]:
        """Picture files by image key."""
        found = ((self._stores[name], getattr(one, "images", {})) for name, one in self.members.items())
        return ChainMap(*(_Prefixed(store, images) for store, images in found))  # type: ignore[arg-type]

    @property
    def node(self) -> dict[str, Any] | None:
        """What opens any split of all members again; None where they are of several data sets."""
        nodes = [getattr(one, "node", None) for one in self.members.values()]
        return nodes[0] if all(node == nodes[0] for node in nodes) else None

    def write(self, predictions: Predictions, path: Path) -> None:
        """A mix has no official file.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"a mix of {', '.join(self.names)} has no official file; predict its members.")


class MixedRows(Rows):
    """The columns of several data sets, one after the other."""

    def __init__(self, members: Sequence[Rows]) -> None:
        self.members = members
        self._ends = [*accumulate(map(len, members))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]
        number = bisect_right(self._ends, row)
        return self.members[number][row - (self._ends[number - 1] if number else 0)]

    def windows(self) -> Iterator[pa.RecordBatch]:
        for one in self.members:
            yield from one.windows()

    @property
    def one_each(self) -> bool:
        return all(one.one_each for one in self.members)

    @property
    def pair_count(self) -> int:
        return sum(one.pair_count for one in self.members)

    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        found = [one.text_counts(count, key=key, trim=trim) for one in self.members]
        most = max(map(len, found))
        wide = [np.pad(one, ((0, most - len(one)), (0, 0)), constant_values=-1) for one in found]
        return np.concatenate(wide, axis=1)

    def coded_images(self) -> tuple[pa.Array, Int[ndarray, " I"]]:
        keys: dict[str, int] = {}
        parts = [np.zeros(0, np.int32)]
        for one in self.members:
            names, codes = one.coded_images()
            numbers = [keys.setdefault(name, len(keys)) for name in names.to_pylist()]
            parts.append(np.array(numbers, np.int32)[codes])
        return pa.array(list(keys), pa.string()), np.concatenate(parts)


class _Prefixed(Mapping[str, Path]):
    """Pictures by `STORE:KEY`."""

    def __init__(self, store: str | None, images: Mapping[str, Path]) -> None:
        self.prefix, self.images = "" if store is None else f"{store}:", images

    def __getitem__(self, key: str) -> Path:
        if not key.startswith(self.prefix):
            raise KeyError(key)
        return self.images[key.removeprefix(self.prefix)]

    def __iter__(self) -> Iterator[str]:
        return (f"{self.prefix}{key}" for key in self.images)

    def __len__(self) -> int:
        return len(self.images)
