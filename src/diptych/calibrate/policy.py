"""The policy: what makes of a model's scores a decision to allow, to review or to block."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.calibrate.bands import CostNode, Costs, actions
from diptych.calibrate.maps import Map, Method
from diptych.documents import check_shape, closed, dump_yaml, read_yaml
from diptych.errors import ConfigError, FormatError
from diptych.files import atomic_file, reserved
from diptych.predictions import Predictions

FORMAT = 1
ADVICE = "Make it again with `diptych calibrate`."
Action = Literal["allow", "review", "block"]
ACTIONS: tuple[Action, ...] = ("allow", "review", "block")
"""From the mildest to the most severe."""


@closed
class MapNode(TypedDict):
    """The fields of `Map`."""

    method: Method
    a: NotRequired[float]
    b: NotRequired[float]
    c: NotRequired[float]
    knots: NotRequired[list[float]]
    values: NotRequired[list[float]]


@closed
class RuleNode(TypedDict):
    """The fields of `Rule`."""

    map: MapNode
    allow: float | None
    block: float | None
    positives: int
    negatives: int
    max_miss: float | None
    max_wrong_block: float | None


@closed
class DevNode(TypedDict):
    """The labeled examples that a policy was made from."""

    split: str
    checksum: str
    examples: int
    scores: Literal["as predicted", "out of fold"]


@closed
class PolicyNode(TypedDict):
    """Content of a policy's file."""

    diptych_policy: int
    made: str
    diptych: str
    model: str | None
    dev: DevNode
    delta: float | None
    labels: dict[str, RuleNode]
    costs: CostNode | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule of one label.

    Args:
        map: from the model's score to a calibrated probability.
        allow: the model's scores below it are allowed; None allows none.
        block: scores above it are blocked; None blocks none.
        positives: number of positive examples that it was fitted on; `negatives`, of the others.
        max_miss: promised largest share of positive examples that are allowed; None without a promise.
        max_wrong_block: promised largest share of negative examples that are blocked.

    Raises:
        ConfigError: a number is impossible.
    """

    map: Map
    allow: float | None
    block: float | None
    positives: int
    negatives: int
    max_miss: float | None = None
    max_wrong_block: float | None = None

    def __post_init__(self) -> None:
        band = [value for value in (self.allow, self.block) if value is not None]
        knots, values = np.array(self.map.knots), np.array(self.map.values)
        faults = {
            # Sorting does not find nan, with which all comparisons are false.
            "allow and block are numbers, allow at most block": not any(map(math.isnan, band))
            and band == sorted(band),
            "positives and negatives are at least 1": min(self.positives, self.negatives) >= 1,
            # Whatever falls or is no number would turn decisions around.
            "map.a and map.b are at least 0": min(self.map.a, self.map.b) >= 0,
            "map.a, map.b and map.c are finite": all(
                map(math.isfinite, (self.map.a, self.map.b, self.map.c))
            ),
            # np.interp reads unsorted knots without complaint, as another map.
            "map.knots rise": bool(np.isfinite(knots).all() and (np.diff(knots) > 0).all()),
            "map.values are probabilities that do not fall, one per knot": len(values) == len(knots)
            and bool(((values >= 0) & (values <= 1)).all() and (np.diff(values) >= 0).all()),
            "map.knots is not empty": bool(len(knots)) == (self.map.method == "isotonic"),
        }
        if wrong := [what for what, fine in faults.items() if not fine]:
            raise ConfigError(f"expected that {wrong[0]}.")

    @property
    def prevalence(self) -> float:
        """Share of positive examples in [0, 1]."""
        return self.positives / (self.positives + self.negatives)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        # Only what the method uses, so that a person who reads the file sees what decides.
        kept = ("knots", "values") if self.map.knots else ("a", "b", "c")
        plain = {"method": self.map.method, **{name: getattr(self.map, name) for name in kept}}
        if self.map.knots:
            plain |= {name: list(getattr(self.map, name)) for name in kept}
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"map": plain}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Decisions on N examples.

    Args:
        action: `allow`, `review` or `block`.
        probability: calibrated probability of the label in `label`.
        label: the label that asks for the action; of several, the most probable.
    """

    action: tuple[Action, ...]
    probability: Float[ndarray, " N"]
    label: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A calibrated map and a band for each label.

    Args:
        labels: rule of each label, by name.
        model: identity of the model, as `Predictions.model`; None if the scores did not say it.
        dev: the labeled examples that it was made from.
        made: date, YYYY-MM-DD.
        version: of diptych.
        delta: largest probability, over labeled samples, that a label's promises do not hold.
        costs: those that shaped the bands, if any.
    """

    labels: Mapping[str, Rule]
    model: str | None
    dev: DevNode
    made: str
    version: str
    delta: float | None = None
    costs: Costs | None = None

    def require_model(self, model: str | None) -> None:
        """Check that scores are of the model that the policy was made for.

        Raises:
            ConfigError: they are of another one, or the policy or the scores do not say of which.
        """
        if self.model is None or model != self.model:
            shown = [("unknown" if one is None else one[:12]) for one in (self.model, model)]
            raise ConfigError(
                f"the policy was made for the model {shown[0]}, but the scores are of the model {shown[1]}; "
                "thresholds of one model mean nothing for another. Calibrate the predictions of this model."
            )

    def decide(self, scores: Float[ndarray, " N"] | Float[ndarray, "N L"] | Predictions) -> Decisions:
        """Decide on the model's probabilities, one column per label in the order of `labels`.

        Of several labels, the most severe action counts.

        Raises:
            FormatError: a score is not a probability, or the predictions lack a label.
        """
        if isinstance(scores, Predictions):
            scores = np.stack([scores.column(label) for label in self.labels], axis=1)
        # The scores of a single label may come as one row of numbers.
        columns = scores.reshape(len(scores), -1).astype(np.float64)
        if columns.shape[1] != len(self.labels):
            raise FormatError(f"there are {columns.shape[1]} columns of scores for {tuple(self.labels)}.")
        # Negated, so that nan is outside, too.
        if (outside := ~((columns >= 0) & (columns <= 1)).all(axis=1)).any():
            row = int(outside.argmax())
            raise FormatError(
                f"{outside.sum()} example(s) have scores outside [0, 1], the first in row {row}: "
                f"{columns[row].tolist()}; a policy decides on the model's probabilities."
            )
        severity = np.zeros(columns.shape, dtype=np.int64)
        probability = np.zeros(columns.shape)
        for number, rule in enumerate(self.labels.values()):
            allowed, blocked = actions(columns[:, number], (rule.allow, rule.block))
            # A place in ACTIONS: 0 allowed, 1 neither, 2 blocked.
            severity[:, number] = 1 - allowed + blocked
            probability[:, number] = rule.map(columns[:, number])
        worst = severity.max(axis=1)
        # -1 is below every probability, so a label with a milder action is never named.
        # Among the labels that ask for the action, the most probable one.
        chosen = np.where(severity == worst[:, None], probability, -1).argmax(axis=1)
        names = tuple(self.labels)
        return Decisions(
            action=tuple(ACTIONS[level] for level in worst),
            probability=probability[np.arange(len(chosen)), chosen],
            label=tuple(names[number] for number in chosen),
        )

    def why(self, label: str, score: float) -> str:
        """Say in a sentence how a score of a label compares with its thresholds."""
        rule = self.labels[label]
        own, *ends = (
            # Thresholds that allow or block everything lie a little outside of [0, 1], where maps are
            # undefined.
            None if value is None else float(rule.map(np.array([min(max(value, 0.0), 1.0)]))[0])
            for value in (score, rule.allow, rule.block)
        )
        below = "none is allowed unseen" if ends[0] is None else f"allowed below {ends[0]:.3f}"
        above = "none is blocked unseen" if ends[1] is None else f"blocked above {ends[1]:.3f}"
        return f"{label} {own:.3f}; {below}, {above}"

    def save(self, path: Path) -> None:
        """Write the policy as YAML."""
        text = dump_yaml(self.as_dict())
        with atomic_file(path, "w", encoding="utf-8") as file:
            file.write(text)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {
            "diptych_policy": FORMAT,
            "made": self.made,
            "diptych": self.version,
            "model": self.model,
            "dev": dict(self.dev),
            "delta": self.delta,
            "labels": {name: rule.as_dict() for name, rule in self.labels.items()},
            "costs": None if self.costs is None else asdict(self.costs),
        }

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy.

        Raises:
            FormatError: the file is not a policy, has a newer format, or a value is impossible.
        """
        # Limits on size and nesting hold here, whatever the content: the file may be a stranger's.
        tree: Any = read_yaml(path, object, advice=ADVICE)
        # Before the shape, which a newer format may change.
        if not isinstance(tree, dict) or tree.get("diptych_policy") != FORMAT:
            raise FormatError(f"{path}: not a policy of format {FORMAT}. {ADVICE}")
        node = check_shape(tree, PolicyNode, where=path, advice=ADVICE)
        if not node["labels"]:
            raise FormatError(f"{path}: labels is empty; expected the rule of at least one label. {ADVICE}")
        labels = {}
        for name, rule in node["labels"].items():
            about: dict[str, Any] = {**rule["map"]}
            # YAML has lists, a frozen map has tuples.
            about |= {key: tuple(about[key]) for key in ("knots", "values") if key in about}
            try:
                labels[name] = Rule(**rule | {"map": Map(**about)})  # type: ignore[arg-type]
            except ConfigError as error:
                raise FormatError(f"{path}: labels.{name}: {error} {ADVICE}") from error
        try:
            costs = None if node["costs"] is None else Costs(**node["costs"])
        except ConfigError as error:
            raise FormatError(f"{path}: {error} {ADVICE}") from error
        return cls(
            labels=labels,
            model=node["model"],
            dev=node["dev"],
            made=node["made"],
            version=node["diptych"],
            delta=node["delta"],
            costs=costs,
        )


def write_decisions(path: Path, ids: Sequence[str], decisions: Decisions, *, overwrite: bool = False) -> None:
    """Write decisions as a CSV `id,action,probability,label`. A file of the same decisions is kept.

    Raises:
        ConfigError: the file exists with another content, and `overwrite` is not set.
    """
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("id", "action", "probability", "label"))
    columns = (ids, decisions.action, decisions.probability, decisions.label)
    for key, action, probability, label in zip(*columns, strict=True):
        # Nine digits tell any two numbers of 32 bits apart.
        rows.writerow((key, action, f"{probability:.9g}", label))
    content = text.getvalue().encode()
    # `diptych predict` keeps finished files when it is called again, so their decisions are no conflict.
    # The size first: it decides almost always, and nothing large is read for it.
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    with reserved(path, overwrite=overwrite, kind="a prediction file"), atomic_file(path) as file:
        file.write(content)
