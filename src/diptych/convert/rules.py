"""From the parameter names of others to ours, as a table that can be read backwards.

A pattern names one parameter, or a module with everything below it; each `{}` stands for a number. Of several
rules that fit a name the first one takes it. The engine accepts a table only if it accounts for everything:
every source name is used once or dropped with a reason, every target name is filled with its shape.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Size, Tensor

from diptych.errors import CheckpointMismatch

Weights = Mapping[str, Tensor]


class Rule(Protocol):
    """One line of a table: source patterns, target patterns, and what happens to the tensors between."""

    @property
    def sources(self) -> tuple[str, ...]: ...

    @property
    def targets(self) -> tuple[str, ...]: ...

    def convert(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]: ...

    def inverse(self) -> "Rule": ...


@dataclass(frozen=True)
class Rename:
    """One tensor under another name."""

    source: str
    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    def convert(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return tensors

    def inverse(self) -> "Rename":
        return Rename(self.target, self.source)


@dataclass(frozen=True)
class Transpose(Rename):
    """A matrix that is stored the other way round, as Paddle does with Linears."""

    def convert(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return [tensor.T for tensor in tensors]

    def inverse(self) -> "Transpose":
        return Transpose(self.target, self.source)


@dataclass(frozen=True)
class Row:
    """One row of a table becomes a vector; on the way back the other rows are zero.

    Args:
        rows: how many the table has.
    """

    source: str
    target: str
    row: int
    rows: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    def convert(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        (table,) = tensors
        if len(table) != self.rows:
            raise CheckpointMismatch(f"{self.source} has {len(table)} rows; expected {self.rows}.")
        return [table[self.row]]

    def inverse(self) -> "Unrow":
        return Unrow(self.target, self.source, self.row, self.rows)


@dataclass(frozen=True)
class Unrow(Row):
    """A vector becomes one row of a table of zeros."""

    def convert(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        (vector,) = tensors
        table = vector.new_zeros(self.rows, *vector.shape)
        table[self.row] = vector
        return [table]

    def inverse(self) -> "Unrow":
        raise TypeError("the way back from a way back is the rule itself")
