"""The memory as a folder: judged cases in `memory.json`, their vectors in `vectors.safetensors`."""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import TypedDict

from diptych.documents import check_shape, closed, parse_json
from diptych.errors import ConfigError, FormatError, first_five, nearest
from diptych.files import atomic_folder, claimed, recover_folder, require_file
from diptych.weights import read_shapes, read_weights, write_weights

FORMAT = 1
KIND = "a memory"
DEFAULT = "main"  # the policy of cases that name none
LIST, VECTORS = "memory.json", "vectors.safetensors"
MAX_BYTES = 1 << 30  # of the list: about four million cases
LONGEST = 1000  # characters of a text that are kept, to show why
ADVICE = "Make it again with `diptych memory add MEMORY`."


@closed
class CaseNode(TypedDict):
    """The fields of `Case`."""

    id: str
    label: str
    policy: str
    text: str
    picture: str
    scores: list[float]
    added: str


@closed
class LearnedNode(TypedDict):
    """The fields of `Learned`."""

    least: float
    weight: float
    split: str
    checksum: str
    examples: int


@closed
class MemoryNode(TypedDict):
    """Content of `memory.json`."""

    diptych_memory: int
    model: str
    parts: list[str]
    classes: list[str]
    neighbors: int
    learned: LearnedNode | None
    cases: list[CaseNode]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A judged example.

    Args:
        label: the class that a person gave it.
        policy: the rule by which it was judged; each policy of a memory votes on its own.
        text: at most the first `LONGEST` characters, to show why; may be empty.
        picture: name of its picture file, likewise.
        scores: probabilities that the model gave it, in the order of the memory's classes.
        added: date, YYYY-MM-DD.
    """

    id: str
    label: str
    scores: tuple[float, ...]
    policy: str = DEFAULT
    text: str = ""
    picture: str = ""
    added: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was learned on a labeled split.

    Args:
        least: cases that are less similar to an example, in [-1, 1], have no vote on it.
        weight: log-odds that a unanimous vote of equal cases adds; 0 if the memory does not help.
        split: the labeled examples, with the checksum of their files and their number.
    """

    least: float
    weight: float
    split: str
    checksum: str
    examples: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Cases with their vectors. It never changes: adding and removing give a new one.

    Args:
        model: identity of the model, as `bundle_checksum` gives it.
        parts: which of its vectors, see `ask`.
        classes: of the model; of two, the second is positive.
        vectors: of the cases, as the model gives them.
        center: mean vector of ordinary examples. It is subtracted before vectors are compared, because the
            vectors of many models all point into one direction.
        learned: None until the memory was fitted; then cases are shown, but change no score.
        neighbors: most similar cases that vote, of each policy.

    Raises:
        ConfigError: the fields contradict each other.
    """

    model: str
    parts: tuple[str, ...]
    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    vectors: Float[ndarray, "N D"]
    center: Float[ndarray, " D"]
    learned: Learned | None = None
    neighbors: int = 10

    def __post_init__(self) -> None:
        twice = [id for id, count in Counter(case.id for case in self.cases).items() if count > 1]
        odd = next((case for case in self.cases if not self._fits(case)), None)
        fit = self.learned
        faults = {
            f"ids are unique, unlike {first_five(twice)}": bool(twice),
            f"labels are among {', '.join(self.classes)}, with a probability for each, unlike those of "
            f"{odd.id if odd else ''!r}": odd is not None,
            "there are at least two different classes": len({*self.classes}) < max(2, len(self.classes)),
            f"there are {len(self.cases)} vectors as wide as the center": len(self.vectors) != len(self.cases)
            or self.vectors.shape[1:] != self.center.shape,
            "neighbors is at least 1": self.neighbors < 1,
            "least is in [-1, 1], and weight a number from 0": fit is not None
            and not (-1 <= fit.least <= 1 and 0 <= fit.weight < np.inf),
        }
        if wrong := [what for what, fault in faults.items() if fault]:
            raise ConfigError(f"expected that {wrong[0]}.")

    def _fits(self, case: Case) -> bool:
        known = case.label in self.classes and len(case.scores) == len(self.classes)
        # Written so that NaN is refused, too.
        return known and all(0 <= score <= 1 for score in case.scores)

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies, in the order of their first cases."""
        return tuple(dict.fromkeys(case.policy for case in self.cases))

    @cached_property
    def labels(self) -> Int[Tensor, " N"]:
        """Numbers of the classes of the cases."""
        number = {name: at for at, name in enumerate(self.classes)}
        return torch.tensor([number[case.label] for case in self.cases], dtype=torch.int64)

    @cached_property
    def by_policy(self) -> dict[str, tuple[Int[Tensor, " M"], Float[Tensor, "M D"]]]:
        """Numbers of the cases of each policy, and their centered vectors of length 1."""
        rows: dict[str, list[int]] = {}
        for number, case in enumerate(self.cases):
            rows.setdefault(case.policy, []).append(number)
        # With one policy no row is copied: a million rows are gigabytes.
        chosen = {name: self.vectors if len(rows) == 1 else self.vectors[own] for name, own in rows.items()}
        return {name: (torch.tensor(own), self.comparable(chosen[name])) for name, own in rows.items()}

    def comparable(self, vectors: Float[ndarray, "Q D"]) -> Float[Tensor, "Q D"]:
        """Centered vectors of length 1, whose products are similarities.

        Raises:
            ConfigError: their width is not that of the memory.
        """
        if vectors.shape[1:] != self.center.shape:
            raise ConfigError(
                f"vectors have {vectors.shape[1]} numbers, but those of the memory {len(self.center)}."
            )
        return F.normalize(torch.from_numpy(vectors - self.center), dim=-1)

    def require_model(self, model: str, *, where: object = "the memory") -> None:
        """Check that vectors are of the model that the memory was made with.

        Raises:
            ConfigError: they are of another one.
        """
        if model != self.model:
            raise ConfigError(
                f"{where} was made with the model {self.model[:12]}, but got the model {model[:12]}; vectors "
                "of two models cannot be compared. Make a memory with this model."
            )

    def with_cases(self, cases: Sequence[Case], vectors: Float[ndarray, "M D"]) -> "Memory":
        """Return a memory with further cases.

        Raises:
            ConfigError: an id is there already, or a label is no class of the model.
        """
        known = {case.id for case in self.cases}
        if again := [case.id for case in cases if case.id in known]:
            raise ConfigError(
                f"the memory has {first_five(again)} already; remove it first, or give another id."
            )
        for case in cases:
            if case.label not in self.classes:
                raise ConfigError(
                    f"the label of {case.id} is {case.label!r}; expected one of {', '.join(self.classes)}."
                    f"{nearest(case.label, self.classes)}"
                )
        if not np.isfinite(vectors).all():
            raise ConfigError("a vector is not finite. Check that the weights of the model are finite.")
        return replace(
            self,
            cases=(*self.cases, *cases),
            vectors=np.concatenate([self.vectors, vectors.astype(np.float32)]),
        )

    def without(self, ids: Collection[str] | None = None, *, policy: str | None = None) -> "Memory":
        """Return a memory without the cases of these ids, or without those of a policy.

        Raises:
            ConfigError: there is no such case or policy.
        """
        known = [case.id for case in self.cases] if policy is None else [*self.policies]
        asked = {*(ids or ())} if policy is None else {policy}
        if missing := sorted(asked - {*known}):
            what = "case" if policy is None else "policy"
            raise ConfigError(f"the memory has no {what} {missing[0]!r}.{nearest(missing[0], known)}")
        kept = [
            number
            for number, case in enumerate(self.cases)
            if (case.id if policy is None else case.policy) not in asked
        ]
        return replace(self, cases=tuple(self.cases[number] for number in kept), vectors=self.vectors[kept])

    def save(self, path: Path) -> None:
        """Write the folder; one that is a memory is replaced as a whole."""
        node = {
            "diptych_memory": FORMAT,
            "model": self.model,
            "parts": list(self.parts),
            "classes": list(self.classes),
            "neighbors": self.neighbors,
            "learned": None if self.learned is None else asdict(self.learned),
            "cases": [asdict(case) | {"scores": list(case.scores)} for case in self.cases],
        }
        tensors = {
            "vectors": torch.from_numpy(np.ascontiguousarray(self.vectors, np.float32)),
            "center": torch.from_numpy(np.ascontiguousarray(self.center, np.float32)),
        }
        with atomic_folder(path, kind=KIND, overwrite=True) as folder:
            text = json.dumps(node, ensure_ascii=False, allow_nan=False)
            (folder / LIST).write_text(f"{text}\n", encoding="utf-8")
            write_weights(tensors, folder / VECTORS)

    @classmethod
    def load(cls, path: Path) -> "Memory":
        """Read a memory.

        Raises:
            FormatError: the folder is not a memory, has a newer format, or its files contradict each other.
        """
        place = require_file(path / LIST, "the list of cases of a memory")
        if (size := place.stat().st_size) > MAX_BYTES:
            raise FormatError(f"{place}: has {size:,} bytes; expected at most {MAX_BYTES:,}. {ADVICE}")
        tree: Any = parse_json(place.read_bytes(), where=place, advice=ADVICE)
        # Before the shape, which a newer format may change.
        if not isinstance(tree, dict) or tree.get("diptych_memory") != FORMAT:
            raise FormatError(f"{place}: not a memory of format {FORMAT}. {ADVICE}")
        node = check_shape(tree, MemoryNode, where=place, advice=ADVICE)
        vectors, center = _read_vectors(path / VECTORS, len(node["cases"]))
        try:
            return cls(
                model=node["model"],
                parts=tuple(node["parts"]),
                classes=tuple(node["classes"]),
                cases=tuple(_case(case) for case in node["cases"]),
                vectors=vectors,
                center=center,
                learned=None if node["learned"] is None else Learned(**node["learned"]),
                neighbors=node["neighbors"],
            )
        except ConfigError as error:
            raise FormatError(f"{path}: {error} {ADVICE}") from error


def _case(node: CaseNode) -> Case:
    return Case(**{**node, "scores": tuple(node["scores"])})  # type: ignore[arg-type]


def _read_vectors(path: Path, count: int) -> tuple[Float[ndarray, "N D"], Float[ndarray, " D"]]:
    shapes = read_shapes(path)
    width = shapes.get("center", ([0], ""))[0]
    # Before numbers are read: the file of a stranger may hold anything.
    if shapes != {"vectors": ([count, *width], "F32"), "center": (width, "F32")} or len(width) != 1:
        got = ", ".join(f"{name} {kind} {shape}" for name, (shape, kind) in sorted(shapes.items()))
        raise FormatError(
            f"{path}: has {got or 'nothing'}; expected a center of D numbers and {count} rows of D "
            f"as vectors, both F32. {ADVICE}"
        )
    tensors = read_weights(path)
    return tensors["vectors"].numpy(), tensors["center"].numpy()


def change(
    path: Path, edit: Callable[[Memory | None], Memory], *, then: Callable[[], object] = lambda: None
) -> Memory:
    """Read a memory, edit it and write it, while no other process changes it; returns the new one.

    Args:
        edit: gets None if there is no folder.
        then: called when the folder is written, and still nobody else may change it.

    Raises:
        ConfigError: another process is changing it.
    """
    place = Path(os.path.realpath(path))
    # A lock of its own: that of the folder is taken only while it is written, and what another process adds
    # between our reading and our writing would be lost.
    with claimed(place, lock=place.with_name(f".{place.name}.change")):
        recover_folder(place)
        memory = edit(Memory.load(place) if os.path.lexists(place) else None)
        memory.save(place)
        then()
    return memory
