"""Checkpoints of a run: `last.ckpt` holds all that a run needs to resume, `best.ckpt` only weights.

A checkpoint is written to a temporary file and renamed, so that a complete one exists at any moment. It holds
only tensors and plain values. Reading one executes nothing, so that files of strangers are safe to load.
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
    """Results of the validations so far.

    Args:
        monitor: metric that decides which weights are best.
        minimized: whether less of it is better.
        best: best value of the metric.
        best_step: optimizer steps done at the best validation.
        history: one row per validation.
        stale: number of validations since the last improvement.
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
        """Add a validation, and return whether it is the best so far. NaN is worse than any number.

        Of two equal values, the one with the lower loss is better, but `stale` still grows: a small
        validation set soon reaches its best AUROC, long before the probabilities are useful.

        Args:
            min_delta: an improvement smaller than this does not count.
        """
        assert self.monitor is not None, "set by the validator"
        self.history.append(dict(row))
        sign = -1 if self.minimized else 1
        value = row[self.monitor]
        nothing_yet = self.best is None or self.best != self.best  # NaN differs from itself
        # Comparisons with NaN are False, so a NaN never replaces a number.
        improved = nothing_yet or sign * (value - (self.best or 0.0)) > min_delta
        surer = value == self.best and row.get("loss", inf) < self.row(self.best_step or 0).get("loss", inf)
        if improved or surer:
            self.best, self.best_step = value, int(row["step"])
        self.stale = 0 if improved and value == value else self.stale + 1  # `value == value`: not NaN
        return improved or surer

    def row(self, step: int) -> Row:
        """Return the metrics of the validation after `step`; empty if there was none."""
        return next((row for row in reversed(self.history) if row["step"] == step), {})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint, from which `ValidationRecord(**values)` builds the record again."""
        return asdict(self)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        DiptychError: it cannot be written. The file that existed before is unchanged.
    """
    try:
        with atomic_file(path) as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        raise DiptychError(
            f"{path}: the checkpoint could not be written ({error}). Is the disk full? "
            "The same command resumes the run from the previous checkpoint."
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote, without executing anything in it.

    Raises:
        FormatError: the file is damaged or not a checkpoint.
    """
    try:
        # Not `torch.load`: a checkpoint may come from a stranger, like any other file.
        state = _read_content(require_file(path, "a checkpoint of a run"))
    except FormatError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise FormatError(
            f"{path}: not a checkpoint of a run ({reason}). Delete it to start the run from the beginning."
        ) from error
    if not isinstance(state, dict) or "weights" not in state:
        raise FormatError(f"{path}: holds no weights; expected a checkpoint that `diptych train` wrote.")
    return state


def _read_content(path: Path) -> Any:
    """Read the content of a file: tensors, plain values, and dicts, lists and tuples of them.

    Raises:
        FormatError: the file is damaged (see `read_torch`), or holds other types.
    """
    lying: dict[int, Lying] = {}
    contents: list[object] = []

    # `read_torch` gives the content with a placeholder (`Lying`) for each tensor, asks which tensors to read,
    # and returns these by name. The identity of a placeholder serves as its name.
    def choose(content: object) -> Mapping[str, Any]:
        contents.append(content)
        _collect(content, lying, set(), path)
        # `contents` keeps the placeholders alive, so that no identity is used twice.
        return {str(identity): placeholder for identity, placeholder in lying.items()}

    try:
        tensors = read_torch(path, choose)
        return _filled(contents[0], tensors, {})
    except RecursionError as error:
        raise FormatError(
            f"{path}: its values are nested too deeply or contain themselves; expected tensors and plain "
            "values."
        ) from error


def _collect(value: object, lying: dict[int, Lying], seen: set[int], path: Path) -> None:
    """Collect the placeholders of tensors by identity, and refuse other types.

    Args:
        lying: gets the placeholders.
        seen: identities of the containers visited so far. A hostile file can refer to one list a million
            times; it is visited once.
    """
    if isinstance(value, Lying):
        lying[id(value)] = value
    elif type(value) in (dict, list, tuple):
        if id(value) not in seen:
            seen.add(id(value))
            # Not `value.items()`: its temporary tuples may reuse the identity of a tuple that is gone, and
            # `seen` would then skip real content.
            parts = (*value, *value.values()) if isinstance(value, dict) else value
            for part in parts:  # type: ignore[attr-defined]
                _collect(part, lying, seen, path)
    elif value is not None and type(value) not in (bool, int, float, str, bytes):
        kind = value.name if isinstance(value, Foreign) else type(value).__name__
        raise FormatError(f"{path}: holds {shorten(kind)}; expected tensors and plain values.")


def _filled(value: Any, tensors: Mapping[str, Tensor], done: dict[int, Any]) -> Any:
    """Replace placeholders by tensors. `done` keeps containers that occur several times one object."""
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
    """Load the weights of a checkpoint into `module`.

    Raises:
        CheckpointMismatch: the weights belong to another model or task.
    """
    try:
        module.load_state_dict(state["weights"])
    except RuntimeError as error:
        raise CheckpointMismatch(f"{path}: the weights do not fit this model or task. {error}") from error


def require_same(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume a run with settings that would change its steps.

    Raises:
        ConfigError: settings differ; the message names each one with both values.
    """
    # Settings that only older versions saved are ignored.
    names = [name for name in now if saved.get(name) != now[name]]
    if names:
        differences = "; ".join(f"{name} was {saved.get(name)}, is now {now[name]}" for name in names)
        raise ConfigError(
            f"{path}: belongs to a run with other settings ({differences}). "
            "Resume with the same settings, or train into another folder."
        )


def warn_of_threads(before: int | None, now: int, path: Path) -> None:
    """Warn if a run resumes with another number of threads, on which the last bits of sums depend."""
    if before not in (None, now):
        warnings.warn(
            f"{path}: the run had {before} thread(s) so far and resumes with {now}; the last bits of its "
            "weights will differ from those of an uninterrupted run. "
            f"Set OMP_NUM_THREADS={before} to avoid this.",
            stacklevel=2,
        )
