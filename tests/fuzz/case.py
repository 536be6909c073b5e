"""What a target works with: the seeds, a folder of its own, random numbers, and the list of all targets."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import hostile
from tests.fuzz.arrays import odd_archive
from tests.fuzz.damage import Damage


@dataclass(kw_only=True)
class Case:
    """One damaged input; number 0 of every target is whole, so that a target that tests nothing shows.

    Args:
        lab: the folder of the seeds.
        folder: the working folder of the command.
        marker: a file that appears when something in the input is run.
        notes: what was done, for people.
    """

    lab: Path
    folder: Path
    number: int
    rng: random.Random
    marker: Path
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing may be damaged."""
        return self.number == 0

    def take(self, seed: str, name: str = "") -> Path:
        """A copy of a seed, a file or a folder, in the folder of the case."""
        source, copy = self.lab / seed, self.folder / (name or Path(seed).name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, copy)
        return copy

    def spoil(self, path: Path, *ways: Damage) -> None:
        """Damage a file in one of these ways."""
        if self.whole:
            return
        way = self.rng.choice(ways)
        self.notes.append(f"{way.__name__} of {path.relative_to(self.folder)}")
        path.write_bytes(way(path.read_bytes(), self.rng))

    def put(self, path: Path, name: str, content: bytes) -> None:
        """Give a file other content."""
        if not self.whole:
            self.notes.append(f"{name} in {path.relative_to(self.folder)}")
            path.write_bytes(content)

    def pick(self, *commands: str) -> list[str]:
        """The words of one of these commands; @ is the folder of the seeds."""
        chosen = self.rng.choice(commands)
        self.notes.append(chosen)
        return [word.replace("@", str(self.lab)) for word in chosen.split()]

    def spoil_archive(self, path: Path, pickled: bytes = b"") -> None:
        """Put a ZIP that was made to harm in the place of one."""
        self.put(path, *odd_archive(path.read_bytes(), pickled, self.rng))

    def hostile_pickle(self) -> tuple[str, bytes]:
        """One of `hostile.pickles`, with its name."""
        return self.rng.choice(sorted(hostile.pickles(self.marker).items()))

    def chance(self, share: float) -> bool:
        """True so often; never for the whole input."""
        return self.rng.random() < share and not self.whole


Make = Callable[[Case], list[str]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of input and the commands that read it.

    Args:
        reads: modules of diptych (without `diptych.`) whose reading is tried, and formats by their names.
        writes: where the command writes, relative to its folder; everything else must stay as it is.
        weight: share of the cases, relative to the others.
    """

    name: str
    make: Make
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ("out",)
    weight: float = 1.0


TARGETS: dict[str, Target] = {}


def target(
    name: str,
    *reads: str,
    writes: tuple[str, ...] = ("out",),
    weight: float = 1.0,
) -> Callable[[Make], Make]:
    """Put a function that makes inputs of one kind on the list."""

    def keep(make: Make) -> Make:
        TARGETS[name] = Target(name=name, make=make, reads=reads, writes=writes, weight=weight)
        return make

    return keep
