"""A cascade: members in the order of their cost; each is asked only where those before it are unsure.

Each member has a band. Scores below it are allowed, scores above it blocked, and what lies inside goes to the
next member. The band of the last member is empty: it decides everything that reaches it.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.calibrate.bands import actions
from diptych.calibrate.policy import ACTIONS, Action, DevNode
from diptych.documents import check_shape, closed, dump_yaml, read_yaml
from diptych.errors import ConfigError, FormatError, first_five
from diptych.files import atomic_file

FORMAT = 1
ADVICE = "Make it again with `diptych cascade`."
Unit = Literal["money", "milliseconds"]
UNITS: tuple[Unit, ...] = ("money", "milliseconds")


@closed
class MemberNode(TypedDict):
    """A member in the file that `read_members_file` reads; costs are per example."""

    name: str
    predictions: str
    money: NotRequired[float]
    milliseconds: NotRequired[float]


@closed
class _MembersNode(TypedDict):
    members: list[MemberNode]


@closed
class StageNode(TypedDict):
    """The fields of `Stage`."""

    name: str
    model: str | None
    cost: float
    allow: float | None
    block: float | None


@closed
class CascadeNode(TypedDict):
    """Content of a cascade's file."""

    diptych_cascade: int
    made: str
    diptych: str
    unit: Unit
    positive: str
    dev: DevNode
    max_miss: float
    max_wrong_block: float | None
    delta: float
    members: list[StageNode]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A member of a cascade.

    Args:
        model: identity, as `Predictions.model`.
        cost: of asking it about one example, at least 0.
        allow: scores below it are allowed; None allows none.
        block: scores above it are blocked, if they are not allowed; None blocks none.
    """

    name: str
    model: str | None
    cost: float
    allow: float | None
    block: float | None

    @property
    def decides(self) -> bool:
        """Whether no score goes to the next member."""
        # Whatever is not below `allow` is then above `block`.
        return self.allow is not None and self.block is not None and self.block < self.allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Decisions of a cascade on N examples.

    Args:
        action: `allow` or `block`.
        stage: number of the member that decided, from 0.
        score: of that member.
        cost: of all members that were asked.
    """

    action: tuple[Action, ...]
    stage: Int[ndarray, " N"]
    score: Float[ndarray, " N"]
    cost: Float[ndarray, " N"]

    @property
    def allowed(self) -> Bool[ndarray, " N"]:
        """Which examples are allowed; the others are blocked."""
        return np.array([action == ACTIONS[0] for action in self.action], dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Bands for members, and the promise that they keep.

    Args:
        stages: the members that are asked, in this order; the last one decides.
        unit: of their costs.
        positive: the class to block.
        dev: the labeled examples that it was made from.
        max_miss: promised largest share of positive examples that are allowed.
        max_wrong_block: promised largest share of others that are blocked; None without this promise.
        delta: largest probability, over labeled samples, that a promise does not hold.
        made: date, YYYY-MM-DD.
        version: of diptych.

    Raises:
        ConfigError: a number is impossible, or a member before the last decides everything.
    """

    stages: tuple[Stage, ...]
    unit: Unit
    positive: str
    dev: DevNode
    max_miss: float
    max_wrong_block: float | None
    delta: float
    made: str
    version: str

    def __post_init__(self) -> None:
        ends = [value for one in self.stages for value in (one.allow, one.block) if value is not None]
        names = [one.name for one in self.stages]
        faults = {
            "there is a member": bool(self.stages),
            "members have different names": len(set(names)) == len(names),
            "costs are at least 0": all(0 <= one.cost < math.inf for one in self.stages),
            # Comparisons with nan are false: such a threshold would decide nothing and say nothing.
            "thresholds are finite": all(map(math.isfinite, ends)),
            # An example that no member decides would pass for a blocked one; a member after one that decides
            # is never asked.
            "the last member decides, and no other": [one.decides for one in self.stages]
            == [False] * (len(names) - 1) + [True],
        }
        if wrong := [what for what, fine in faults.items() if not fine]:
            raise ConfigError(f"expected that {wrong[0]}.")

    def require_models(self, models: Mapping[str, str | None]) -> None:
        """Check that scores are of the models that the cascade was made for.

        Args:
            models: identity of each member's model, by name.

        Raises:
            ConfigError: a member is missing or of another model.
        """
        for one in self.stages:
            if one.name not in models:
                raise ConfigError(f"the cascade asks {one.name!r}, but the members are {', '.join(models)}.")
            if models[one.name] != one.model:
                old, new = ("unknown" if it is None else it[:12] for it in (one.model, models[one.name]))
                raise ConfigError(
                    f"{one.name}: the cascade was made for the model {old}, but the scores are of the model "
                    f"{new}; thresholds of one model mean nothing for another. Make the cascade again."
                )

    def decide(self, scores: Float[ndarray, "K N"], ids: Sequence[str]) -> Routed:
        """Decide on the scores of the members in `stages`; nan where a member was not asked.

        Raises:
            FormatError: a member that is asked has no score.
        """
        count = scores.shape[1]
        decided, rest = np.full(count, -1), np.ones(count, dtype=bool)
        allowed, cost, score = np.zeros(count, dtype=bool), np.zeros(count), np.full(count, np.nan)
        for number, (one, row) in enumerate(zip(self.stages, scores, strict=True)):
            # Dear members are often asked about the rest only, so a missing score matters only there.
            if (gone := rest & np.isnan(row)).any():
                keys = [ids[at] for at in np.flatnonzero(gone).tolist()]
                raise FormatError(
                    f"{one.name}: no score of {len(keys)} example(s) that reach this member: "
                    f"{first_five(keys)}. Predict them."
                )
            cost += rest * one.cost
            below, above = actions(row, (one.allow, one.block))
            ends = rest & (below | above)
            # Below wins: the empty band of the last member has its block below its allow.
            allowed |= ends & below
            decided[ends], score[ends] = number, row[ends]
            rest &= ~ends
        return Routed(
            action=tuple(ACTIONS[0] if one else ACTIONS[2] for one in allowed),
            stage=decided,
            score=score,
            cost=cost,
        )

    def save(self, path: Path) -> None:
        """Write the cascade as YAML."""
        text = dump_yaml(self.as_dict())
        with atomic_file(path, "w", encoding="utf-8") as file:
            file.write(text)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        fields = ("name", "model", "cost", "allow", "block")
        return {
            "diptych_cascade": FORMAT,
            "made": self.made,
            "diptych": self.version,
            "unit": self.unit,
            "positive": self.positive,
            "dev": dict(self.dev),
            "max_miss": self.max_miss,
            "max_wrong_block": self.max_wrong_block,
            "delta": self.delta,
            "members": [{name: getattr(one, name) for name in fields} for one in self.stages],
        }

    @classmethod
    def load(cls, path: Path) -> "Cascade":
        """Read a cascade.

        Raises:
            FormatError: the file is not a cascade, has a newer format, or a value is impossible.
        """
        tree: Any = read_yaml(path, object, advice=ADVICE)
        # Before the shape, which a newer format may change.
        if not isinstance(tree, dict) or tree.get("diptych_cascade") != FORMAT:
            raise FormatError(f"{path}: not a cascade of format {FORMAT}. {ADVICE}")
        node = check_shape(tree, CascadeNode, where=path, advice=ADVICE)
        kept = ("unit", "positive", "dev", "max_miss", "max_wrong_block", "delta", "made")
        try:
            return cls(
                stages=tuple(Stage(**one) for one in node["members"]),
                version=node["diptych"],
                **{name: node[name] for name in kept},  # type: ignore[literal-required]
            )
        except ConfigError as error:
            raise FormatError(f"{path}: {error} {ADVICE}") from error


def read_members_file(path: Path) -> list[MemberNode]:
    """Read the members of a cascade: `members`, each with `name`, `predictions` and costs per example.

    `predictions` is the place of a prediction file, relative to the file; `{split}` in it stands for a split.

    Raises:
        FormatError: a field is missing, unknown or of another type, or a cost is impossible.
        ConfigError: there are fewer than two members, or two have one name.
    """
    advice = "Expected members, each with name, predictions, and money or milliseconds per example."
    members = read_yaml(path, _MembersNode, advice=advice)["members"]
    names = [one["name"] for one in members]
    if len(members) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"{path}: the members are {names}; expected at least two, with different names.")
    for one in members:
        # A member may have costs of both units; a cascade counts in one.
        for unit in UNITS:
            if (cost := one.get(unit)) is not None and not 0 <= cost < math.inf:
                raise FormatError(
                    f"{path}: {one['name']}: {unit} is {cost}; expected a number of at least 0."
                )
    return members


def write_routed(path: Path, ids: Sequence[str], routed: Routed, names: Sequence[str]) -> None:
    """Write decisions as a CSV `id,action,member,score`."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("id", "action", "member", "score"))
    for key, action, stage, score in zip(ids, routed.action, routed.stage, routed.score, strict=True):
        # Nine digits tell any two numbers of 32 bits apart.
        rows.writerow((key, action, names[stage], f"{score:.9g}"))
    with atomic_file(path, "w", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())
