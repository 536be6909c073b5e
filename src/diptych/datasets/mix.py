"""Mixes of several data sets."""

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

from diptych.datasets.counting import Count
from diptych.datasets.placed import PlacedRows, placed
from diptych.datasets.rows import Rows
from diptych.errors import ConfigError, nearest
from diptych.predictions import Predictions
from diptych.types import Dataset, Example


class Mix:
    """Concatenates data sets, its members.

    The id of an example becomes `MEMBER/ID` and its image key `STORE:KEY`, so that both stay unique. If
    `features` is a single store, it has the images of all members. If `features` names several stores, the
    images of a member are in the store with its name, or with the name that `stores` gives.

    Args:
        members: data sets by name.
        weights: how often an epoch takes the examples of a member. 0.5 draws half of them, anew for every
            epoch; 2 takes all of them twice. Members without a weight have 1. None takes every example once.
        stores: name of the feature store of a member.
        one_store: image keys stay as they are, because one store has the images of all members, or only one
            member has images.

    Raises:
        ConfigError: there are no members, or a name or a weight is invalid.
    """

    def __init__(
        self,
        members: Mapping[str, Dataset],
        *,
        weights: Mapping[str, int | float] | None = None,
        stores: Mapping[str, str] | None = None,
        one_store: bool = False,
    ) -> None:
        if not members:
            raise ConfigError("a mix has no members; expected at least one data set, by name.")
        for what, named in (("weights", weights), ("stores", stores)):
            if unknown := [name for name in named or () if name not in members]:
                raise ConfigError(
                    f"{what} of the mix has the name {unknown[0]!r}; expected one of its members "
                    f"{', '.join(members)}.{nearest(unknown[0], members)}"
                )
        # The first ":" of an image key ends the name of its store.
        if odd := [name for name in (*members, *(stores or {}).values()) if not name or ":" in name]:
            raise ConfigError(f"a member or store has the name {odd[0]!r}; expected a name without ':'.")
        if odd := [name for name, weight in (weights or {}).items() if not 0 < weight < math.inf]:
            raise ConfigError(f"the weight of {odd[0]!r} is {(weights or {})[odd[0]]}; expected more than 0.")
        self.members, self.weights = dict(members), weights
        self.names = tuple(members)
        self._stores: dict[str, str | None] = {name: (stores or {}).get(name, name) for name in members}
        # A member with stores of its own has keys that name them already.
        placed_already = {name for name, member in members.items() if getattr(member, "stores", None)}
        kept = {*members} if one_store else placed_already
        self._stores.update(dict.fromkeys(kept))
        self._ends = [*accumulate(map(len, members.values()))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]
        number = bisect_right(self._ends, row)
        name = self.names[number]
        # Example: members of 3 and 4 examples end at 3 and 7. Row 3 is the first of the second member,
        # because `bisect_right` goes behind equal ends.
        before = self._ends[number - 1] if number else 0
        return placed(self.members[name][row - before], self._stores[name], f"{name}/")

    @property
    def rows(self) -> "MixedRows | None":
        """The columns of all members; None if a member has none."""
        columns = []
        for name, member in self.members.items():
            rows = getattr(member, "rows", None)
            if rows is None:
                return None
            columns.append(PlacedRows(rows, self._stores[name], f"{name}/"))
        return MixedRows(columns)

    @property
    def member_counts(self) -> dict[str, int]:
        """Number of examples of each member, in order."""
        return {name: len(member) for name, member in self.members.items()}

    @property
    def draws(self) -> list[tuple[int, int]] | None:
        """Number of examples of each member, and how many an epoch takes of it; None without weights."""
        if self.weights is None:
            return None
        # An empty member has nothing to draw, and would divide by zero in `Plan`.
        counts = {name: len(member) for name, member in self.members.items() if len(member)}
        weights = self.weights
        return [(count, max(1, round(weights.get(name, 1) * count))) for name, count in counts.items()]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the feature stores of all members."""
        own = (name for member in self.members.values() for name in getattr(member, "stores", ()))
        return tuple(dict.fromkeys([*own, *(name for name in self._stores.values() if name is not None)]))

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of all members, in the order in which they first appear."""
        every = (label for member in self.members.values() for label in getattr(member, "labels", ()))
        return tuple(dict.fromkeys(every))

    @property
    def files(self) -> tuple[Path, ...]:
        """Files from which all members were read."""
        return tuple(file for member in self.members.values() for file in getattr(member, "files", ()))

    @property
    def images(self) -> Mapping[str, Path]:
        """Picture files by image key."""
        own = ((self._stores[name], getattr(member, "images", {})) for name, member in self.members.items())
        # Not one dictionary: the paths of a member are collected only when one of its pictures is looked up.
        return ChainMap(*(_Prefixed(store, images) for store, images in own))  # type: ignore[arg-type]

    @property
    def node(self) -> dict[str, Any] | None:
        """Config that opens any split of the members; None if these are different data sets."""
        nodes = [getattr(member, "node", None) for member in self.members.values()]
        # A bundle stores one node. Members that are splits of one data set (train and dev) have the same.
        return nodes[0] if all(node == nodes[0] for node in nodes) else None

    def write(self, predictions: Predictions, path: Path) -> None:
        """Refuse to write: a mix has no official prediction file.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"a mix of {', '.join(self.names)} has no official prediction file; predict its members one by "
            "one."
        )


class MixedRows(Rows):
    """The concatenated columns of several data sets."""

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
        for member in self.members:
            yield from member.windows()

    @property
    def one_each(self) -> bool:
        return all(member.one_each for member in self.members)

    @property
    def pair_count(self) -> int:
        return sum(member.pair_count for member in self.members)

    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        counts = [member.text_counts(count, key=key, trim=trim) for member in self.members]
        # Members without second texts have one row of counts; the others have two.
        most = max(map(len, counts))
        padded = [np.pad(rows, ((0, most - len(rows)), (0, 0)), constant_values=-1) for rows in counts]
        return np.concatenate(padded, axis=1)

    def coded_images(self) -> tuple[pa.Array, Int[ndarray, " I"]]:
        keys: dict[str, int] = {}
        parts = [np.zeros(0, np.int32)]
        for member in self.members:  # members may share a store, and so images
            names, codes = member.coded_images()
            numbers = [keys.setdefault(name, len(keys)) for name in names.to_pylist()]
            parts.append(np.array(numbers, np.int32)[codes])
        return pa.array(list(keys), pa.string()), np.concatenate(parts)


class _Prefixed(Mapping[str, Path]):
    """Picture files under keys `STORE:KEY`."""

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
