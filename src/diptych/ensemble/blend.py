"""Blends of predictions without fitting, joined by id."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit, softmax
from scipy.stats import rankdata

from diptych.data.inputs import digest
from diptych.errors import ConfigError, FormatError, first_five, nearest
from diptych.predictions import Predictions

Method = Literal["mean", "power", "rank", "geometric", "logit"]
Missing = Literal["stop", "renormalize"]
"""If a member lacks examples: stop with an error, or let the other members share its weight there."""
OWN = ("path", "made_of", "imported", "spread")  # metadata of one file, which no blend inherits

# Lower bound of probabilities in logarithms. log(0) would let one member veto a class, and two members with
# opposite certainties would give nan; with a bound they cancel out.
EPSILON = 1e-15


def blend(
    members: Sequence[Predictions],
    *,
    method: Method = "mean",
    weights: Sequence[float] | None = None,
    power: float = 2.0,
    missing: Missing = "stop",
) -> Predictions:
    """Combine the scores p of several members, with weights w that sum to one, into one prediction.

    `mean`: sum of w p, a probability.
    `power`: (sum of w p^power)^(1/power) per class, divided by the sum over classes, a probability; a power
    above 1 favors members that are confident of a class.
    `geometric`: product of p^w per class, divided by the sum over classes, a probability.
    `logit`: the probability whose log-odds are the sum of w log(p / (1 - p)), per class; the same as
    `geometric` for two classes, while those of more classes need not sum to one.
    `rank`: sum of w rank(p) / N per class, where the best of N examples has rank N and ties their mean rank;
    in (0, 1], but not a probability: it depends on the other examples, and 0.5 is the median, not even odds.

    Rows have the order of the first member; with `missing="renormalize"`, those that it lacks follow. The
    answer is the class with the highest score; multi-label predictions get no answers.

    Args:
        weights: one non-negative number per member; None means equal.
        power: positive exponent of `power`; 1 is the mean, and the limit 0 is `geometric`.
        missing: with `renormalize`, the weights of an example are those of the members that have it, divided
            by their sum; `missing` in the metadata lists which member lacked which ids.

    Raises:
        FormatError: members differ in ids or classes, or the method needs probabilities and gets others.
        ConfigError: an unknown method, unusable weights or power, no member, or an example that only members
            of weight 0 have.
    """
    if method not in get_args(Method):
        raise ConfigError(
            f"method is {method!r}; expected one of {get_args(Method)}.{nearest(method, get_args(Method))}"
        )
    if not (np.isfinite(power) and power > 0):
        raise ConfigError(f"power is {power}; expected a positive number.")
    shares = _shares(weights, len(members))
    lacking: dict[str, tuple[str, ...]] = {}
    if missing == "renormalize":
        members, lacking = completed(members)
    joined = stack_scores(members, gaps=bool(lacking))
    if method != "rank":
        require_probabilities(joined, member_names(members), sum_to_one=method in ("power", "geometric"))
    scores = _combine(joined, _row_shares(joined, shares, members[0].ids), method=method, power=power)
    classes, form = members[0].classes, members[0].form
    answers = None
    if classes is not None and form != "labels":  # multi-label: several classes may apply
        answers = tuple(classes[index] for index in scores.argmax(axis=1))
    return Predictions(
        ids=members[0].ids,
        scores=scores,
        answers=answers,
        classes=classes,
        form=form,
        meta=_provenance(members, method=method, shares=shares, power=power)
        | ({"missing": {name: list(ids) for name, ids in lacking.items()}} if lacking else {}),
    )


def agreement(
    members: Sequence[Predictions], *, of: str | None = None, missing: Missing = "stop"
) -> Float[ndarray, "M M"]:
    """Return the Spearman correlation of all pairs of members, in [-1, 1].

    Blending helps most with low correlations. A member with constant scores gets nan. With
    `missing="renormalize"`, the examples count that all members have.

    Args:
        of: class whose scores are compared; None means the last one.

    Raises:
        ConfigError: there is no class `of`.
    """
    if missing == "renormalize":
        members, _ = completed(members)
    joined = stack_scores(members, gaps=missing == "renormalize")
    joined = joined[:, np.isfinite(joined).all(axis=(0, 2))]
    classes = members[0].classes or ()
    if of is not None and of not in classes:
        raise ConfigError(f"no class is called {of!r}; expected one of {classes}.{nearest(of, classes)}")
    ranks = rankdata(joined[:, :, -1 if of is None else classes.index(of)], axis=1)
    # Spearman's correlation is Pearson's of the ranks: centered, scaled to length 1, multiplied.
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 for constant scores
        ranks /= np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.asarray(ranks @ ranks.T)


def member_names(members: Sequence[Predictions]) -> tuple[str, ...]:
    """Return each member's file name; its path if the name is not unique, `member 1` if it is unknown."""
    paths = [member.meta.get("path") for member in members]
    files = Counter(Path(path).name for path in paths if path)
    names = (
        f"member {number}" if not path else Path(path).name if files[Path(path).name] == 1 else str(path)
        for number, path in enumerate(paths, 1)
    )
    return tuple(names)


def completed(
    members: Sequence[Predictions],
) -> tuple[list[Predictions], dict[str, tuple[str, ...]]]:
    """Give every member a row for each example that any member has; scores of added rows are nan.

    Returns:
        The members, with equal ids in one order, and the ids that each lacked, by its name; none if it lacked
        none.

    Raises:
        FormatError: members differ in classes, or have scores that are not finite.
        ConfigError: there is no member.
    """
    if not members:
        raise _nothing()
    every: dict[str, None] = {}
    spelled = []
    for name, member in zip(member_names(members), members, strict=True):
        _require_like(members[0], member, name)
        if not len(member):
            raise FormatError(f"{name}: has no rows; leave this member out.")
        spelled.append(member.spelled_like(every))
        every |= dict.fromkeys(spelled[-1].ids)
    found, lacking = [], {}
    for name, member in zip(member_names(members), spelled, strict=True):
        here = set(member.ids)
        if gone := tuple(key for key in every if key not in here):
            lacking[name] = gone
        assert member.scores is not None  # `_require_like`
        scores = np.concatenate((member.scores, np.full((len(gone), member.scores.shape[1]), np.nan)))
        whole = Predictions(
            ids=(*member.ids, *gone),
            scores=scores,
            classes=member.classes,
            form=member.form,
            meta=member.meta,
        )
        found.append(whole.align([*every]))
    return found, lacking


def stack_scores(members: Sequence[Predictions], *, gaps: bool = False) -> Float[ndarray, "M N C"]:
    """Return the scores of all members, with rows and classes in the order of the first member.

    Args:
        gaps: allow the rows of nan that `completed` adds.

    Raises:
        FormatError: members differ in ids or classes; names the member and what it lacks.
        ConfigError: there is no member.
    """
    if not members:
        raise _nothing()
    names, first = member_names(members), members[0]
    for name, member in zip(names, members, strict=True):
        _require_like(first, member, name, gaps=gaps)
    # spreadsheets turn the id 01235 into 1235
    members = [first, *(member.spelled_like(first.ids) for member in members[1:])]
    # All of them at once; `align` would stop at the first member.
    every = dict.fromkeys(key for member in members for key in member.ids)
    lacking = []
    for name, member in zip(names, members, strict=True):
        here = set(member.ids)
        if missing := [key for key in every if key not in here]:
            lacking.append(f"{name} lacks {len(missing)} ({first_five(missing)})")
    if lacking:
        raise FormatError(
            f"members do not cover the same {len(every)} examples: {'; '.join(lacking)}. "
            "Predict the same split with every model, or let the others stand in with --missing renormalize."
        )
    return np.stack([_scores_like(first, member) for member in members])


def _nothing() -> ConfigError:
    return ConfigError("there is nothing to blend; expected at least one prediction file.")


def _require_like(first: Predictions, member: Predictions, name: str, *, gaps: bool = False) -> None:
    if member.scores is None or first.scores is None:
        raise FormatError(f"{name}: predictions have answers but no scores; blending needs scores.")
    if len(member.unique()) < len(member):
        raise FormatError(f"{name}: some ids occur twice; expected one row for every id.")
    if (
        set(member.classes or ()) != set(first.classes or ())
        or member.scores.shape[1] != first.scores.shape[1]
    ):
        raise FormatError(
            f"{name}: {member.scores.shape[1]} score columns of the classes {member.classes}; expected "
            f"{first.scores.shape[1]} of {first.classes} as in the first member."
        )
    sound = np.isfinite(member.scores).all(axis=1) | (gaps & np.isnan(member.scores).all(axis=1))
    if not sound.all():
        row = int(np.argmin(sound))
        raise FormatError(f"{name}: the scores of id {member.ids[row]!r} are not finite.")


def _scores_like(first: Predictions, member: Predictions) -> Float[ndarray, "N C"]:
    member = member.align(first.ids)
    if member.classes is None:
        return np.asarray(member.scores, dtype=np.float64)
    return np.stack([member.column(name) for name in first.classes or ()], axis=1).astype(np.float64)


def _shares(weights: Sequence[float] | None, count: int) -> Float[ndarray, " M"]:
    values = np.ones(count) if weights is None else np.array(weights, dtype=np.float64)
    if len(values) != count:
        raise ConfigError(f"there are {len(values)} weights for {count} members; expected one of each.")
    if not np.isfinite(values).all() or (values < 0).any() or (count and not values.any()):
        raise ConfigError(f"weights are {values.tolist()}; expected non-negative numbers, not all zero.")
    return values / values.sum() if count else values  # no members: stack_scores() reports that


def _row_shares(
    joined: Float[ndarray, "M N C"], shares: Float[ndarray, " M"], ids: Sequence[str]
) -> Float[ndarray, "M N"]:
    """The weights of each example: those of the members that have it, which sum to one."""
    here = np.isfinite(joined).all(axis=2)
    if here.all():
        return np.tile(shares[:, None], len(ids))
    found = here * shares[:, None]
    if (empty := found.sum(axis=0) == 0).any():
        raise ConfigError(
            f"id {ids[int(empty.argmax())]!r}: only members of weight 0 have this example; give one of them "
            "a weight, or leave the example out."
        )
    return np.asarray(found / found.sum(axis=0))


def require_probabilities(joined: Float[ndarray, "M N C"], names: Sequence[str], *, sum_to_one: bool) -> None:
    """Check that the scores of all members are probabilities.

    Args:
        sum_to_one: also check that the scores of each example sum to one, up to 1e-3.

    Raises:
        FormatError: a score is outside of [0, 1], or a sum is wrong; names the member and the value.
    """
    for name, scores in zip(names, joined, strict=True):
        if (outside := (scores < 0) | (scores > 1)).any():
            raise FormatError(
                f"{name}: score {scores[outside][0]:g}; expected probabilities in [0, 1]. Blend such scores "
                "with method=rank, or read them with kind=logit or kind=log_probability."
            )
        if sum_to_one and (wrong := np.abs(scores.sum(axis=1) - 1) > 1e-3).any():
            raise FormatError(
                f"{name}: the scores of an example sum to {scores[wrong][0].sum():g}; expected probabilities "
                "that sum to one over the classes. Blend such scores with method=mean or method=rank."
            )


def _combine(
    scores: Float[ndarray, "M N C"], shares: Float[ndarray, "M N"], *, method: Method, power: float
) -> Float[ndarray, "N C"]:
    if method == "rank":
        # Among the examples that the member has: the ranks of nan are nan.
        counts = np.isfinite(scores).sum(axis=1, keepdims=True)
        scores = rankdata(scores, axis=1, nan_policy="omit") / counts
    # What is missing has no weight, but 0 times nan would be nan.
    scores = np.where(np.isnan(scores), 0.5, scores)
    if method in ("mean", "rank"):
        return np.asarray(np.einsum("mn,mnc->nc", shares, scores))
    if method in ("geometric", "logit"):
        logs = np.log(np.maximum(scores, EPSILON))
        if method == "geometric":
            return np.asarray(softmax(np.einsum("mn,mnc->nc", shares, logs), axis=1))
        odds = logs - np.log(np.maximum(1 - scores, EPSILON))
        return np.asarray(expit(np.einsum("mn,mnc->nc", shares, odds)))
    # relative to the largest score, because a large power of a small score underflows to 0
    peak = np.maximum(scores.max(axis=0), np.finfo(np.float64).tiny)  # not 0, by which we divide
    means = peak * np.einsum("mn,mnc->nc", shares, (scores / peak) ** power) ** (1 / power)
    # Each class has its own mean, and these do not sum to one by themselves.
    return np.asarray(means / means.sum(axis=1, keepdims=True))


def _provenance(
    members: Sequence[Predictions], *, method: Method, shares: Float[ndarray, " M"], power: float
) -> dict[str, Any]:
    """Return metadata of a blend: what all members have in common, their names, and the method."""
    first = members[0].meta
    common = {key: value for key, value in first.items() if all(m.meta.get(key) == value for m in members)}
    for key in OWN:  # even if all members happen to share them
        common.pop(key, None)
    exponent = {"power": power} if method == "power" else {}
    return {
        **common,
        "method": method,
        "members": list(member_names(members)),
        "weights": shares.tolist(),
        **exponent,
        **identity(members, method, shares.tolist(), power),
    }


def identity(members: Sequence[Predictions], *how: Any) -> dict[str, str]:
    """The entry `model` of a blend's metadata: a checksum of its members and of how they are blended.

    Empty if a member does not say which model it is of.
    """
    models = [member.model for member in members]
    return {} if None in models else {"model": digest([models, *how])}
