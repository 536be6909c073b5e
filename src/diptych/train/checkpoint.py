"""The checkpoints of a run: `last.ckpt` holds all that a run needs to go on, `best.ckpt` weights alone.

Both are written beside and renamed, so that a whole one exists at any moment, and hold nothing but tensors
and plain values, so that they load without trust.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.documents import shorten
from diptych.errors import CheckpointMismatch, ConfigError, DiptychError, FormatError
from diptych.files import atomic_file, require_file
from diptych.pickle_machine import Foreign
from diptych.torch_file import Lying, read_torch

Row = dict[str, int | float]  # `step`, `epoch` and metrics of one validation


@dataclass(kw_only=True)
class ValidationRecord:
    """What validation has said so far.

    Args:
        monitor: the metric that decides.
        minimized: less of it is better.
        history: one row per validation.
        stale: validations since the best one.
        stopped: the run ended before its last step because it no longer improved.
        final: metrics of the averaged weights at the end.
    """

    monitor: str | None = None
    minimized: bool = False
    best: float | None = None
    best_step: int | None = None
    history: list[Row] = field(default_factory=list)
    stale: int = 0
    stopped: bool = False
    final: dict[str, float] = field(default_factory=dict)

    def add(self, row: Row, *, min_delta: float = 0.0) -> bool:
        """Note a validation; True when it is the best so far. NaN is worse than any number.

        Of equals the one with the lower loss is better, but does not count as progress: small validation sets
        soon reach their best AUROC, long before the probabilities mean anything.

        Args:
            min_delta: an improvement smaller than this does not count.
        """
        assert self.monitor is not None
        self.history.append(dict(row))
        sign = -1 if self.minimized else 1
        value = row[self.monitor]
        nothing_yet = self.best is None or self.best != self.best
        improved = nothing_yet or sign * (value - (self.best or 0.0)) > min_delta
        surer = value == self.best and row.get("loss", inf) < self.row(self.best_step or 0).get("loss", inf)
        if improved or surer:
            self.best, self.best_step = value, int(row["step"])
        self.stale = 0 if improved and value == value else self.stale + 1
        return improved or surer

    def row(self, step: int) -> Row:
        """The metrics of the validation after `step`."""
        return next((row for row in reversed(self.history) if row["step"] == step), {})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint under its name, whole or not at all.

    Raises:
        DiptychError: it cannot be written; what stood there before still does.
    """
    try:
        with atomic_file(path) as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        raise DiptychError(
            f"{path}: the checkpoint could not be written ({error}). Is the disk full? "
            "The run goes on from the checkpoint before when the same command is given again."
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, without executing anything in it.

    Raises:
        FormatError: the file is damaged or something else.
    """
    try:
        state = _read_content(require_file(path, "a checkpoint of a run"))
    except FormatError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise FormatError(
            f"{path}: not a checkpoint of a run ({reason}). Delete it to start this run again."
        ) from error
    if not isinstance(state, dict) or "weights" not in state:
        raise FormatError(f"{path}: holds no weights; expected a checkpoint that `diptych train` wrote.")
    return state


def _read_content(path: Path) -> Any:
    """All that a file holds: tensors, plain values, and dicts, lists and tuples of them.

    Raises:
        FormatError: as `read_torch`; or it holds something else.
    """
    lying: dict[int, Lying] = {}
    whole: list[object] = []

    def choose(value: object) -> Mapping[str, Any]:
        whole.append(value)
        _collect(value, lying, set(), path)
        return {str(place): one for place, one in lying.items()}

    try:
        tensors = read_torch(path, choose)
        return _filled(whole[0], tensors, {})
    except RecursionError as error:
        raise FormatError(f"{path}: its values lie in each other too deep, or in a circle.") from error


def _collect(value: object, lying: dict[int, Lying], seen: set[int], path: Path) -> None:
    """Find the tensors, by the identity of what stands for them. What occurs often is looked at once."""
    if isinstance(value, Lying):
        lying[id(value)] = value
    elif type(value) in (dict, list, tuple):
        if id(value) not in seen:
            seen.add(id(value))
            # no tuples of items: an object that is gone may give its identity to the next one
            parts = (*value, *value.values()) if isinstance(value, dict) else value
            for part in parts:  # type: ignore[attr-defined]
                _collect(part, lying, seen, path)
    elif value is not None and type(value) not in (bool, int, float, str, bytes):
        kind = value.name if isinstance(value, Foreign) else type(value).__name__
        raise FormatError(f"{path}: it holds {shorten(kind)}; expected tensors and plain values.")


def _filled(value: Any, tensors: Mapping[str, Tensor], done: dict[int, Any]) -> Any:
    if isinstance(value, Lying):
        return tensors[str(id(value))]
    if type(value) not in (dict, list, tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {name: _filled(part, tensors, done) for name, part in value.items()}
        else:
            done[id(value)] = type(value)(_filled(part, tensors, done) for part in value)
    return done[id(value)]


def load_weights(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint.

    Raises:
        CheckpointMismatch: they belong to another model.
    """
    try:
        module.load_state_dict(state["weights"])
    except RuntimeError as error:
        raise CheckpointMismatch(f"{path}: weights do not fit this model or task. {error}") from error


def require_same(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with a run under settings that change what its steps are.

    Raises:
        ConfigError: names each setting that differs, with both values.
    """
    names = [name for name in now if saved.get(name) != now[name]]
    if names:
        differences = "; ".join(f"{name} was {saved.get(name)}, is now {now[name]}" for name in names)
        raise ConfigError(
            f"{path}: belongs to a run with other settings ({differences}). "
            "Resume with the same settings, or train into another folder."
        )


def warn_of_threads(before: int | None, now: int, path: Path) -> None:
    """Say so when a run goes on with another number of threads, on which the last bits of sums depend."""
    if before not in (None, now):
        warnings.warn(
            f"{path}: the run had {before} thread(s) so far and goes on with {now}; its weights will differ "
            "in their last bits from those of a run that was not stopped. "
            f"OMP_NUM_THREADS={before} avoids that.",
            stacklevel=2,
        )
