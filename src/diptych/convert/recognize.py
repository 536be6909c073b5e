"""Whose weights a file holds, which of its heads becomes the task, and what is left out."""

from collections.abc import Collection, Sequence

from diptych.convert.family import Family, Head, Node, RecognizedCheckpoint
from diptych.convert.rules import Drop, Rule, Table, Weights, left_out, taken
from diptych.convert.split import Split
from diptych.errors import CheckpointMismatch, ConfigError, nearest


def recognize(
    weights: Weights, families: Sequence[Family], *, where: object, asked: str | None
) -> RecognizedCheckpoint:
    """The one family whose names a file has, whatever the file is called.

    Args:
        asked: the family that somebody expects; None takes any.

    Raises:
        ConfigError: there is no such family.
        CheckpointMismatch: no family fits, more than one does, or it is another one than asked.
    """
    names = [family.name for family in families]
    if asked is not None and asked not in names:
        raise ConfigError(
            f"there is no family {asked!r}.{nearest(asked, names)} There are {', '.join(names)}."
        )
    by_backbone = {one: one.split(weights) for one in {family.backbone for family in families}}
    splits = [(one, split) for one in families if (split := by_backbone[one.backbone]) is not None]
    fitting = [(one, split) for one, split in splits if not split.missing(one.required)]
    # what BERT requires, most others do, too
    finest = [
        (one, split)
        for one, split in fitting
        if not any(one.required < other.required for other, _ in fitting)
    ]
    if len(finest) > 1 and asked is not None:
        finest = [(one, split) for one, split in finest if one.name == asked] or finest
    if len(finest) != 1:
        raise CheckpointMismatch(f"{where}: {_seen(weights, splits, [one.name for one, _ in finest])}")
    [(family, split)] = finest
    if asked not in (None, family.name):
        raise CheckpointMismatch(
            f"{where}: holds {family.title}, known by {', '.join(sorted(family.required))}; expected "
            f"{asked}. Leave the family out, or say {family.name}."
        )
    try:
        sizes = family.sizes(split)
    except (KeyError, IndexError) as error:
        raise CheckpointMismatch(
            f"{where}: {family.title}, but {error.args[0]} is missing, and with it a size. Was a part lost?"
        ) from error
    return RecognizedCheckpoint(family=family, split=split, sizes=sizes)


def _seen(weights: Weights, splits: Sequence[tuple[Family, Split]], fitting: list[str]) -> str:
    first = f"{len(weights)} tensors, first {', '.join(list(weights)[:4])}"
    if fitting:
        return f"fits {' and '.join(fitting)} ({first}); say which with family=."
    lacking = {
        family.name: missing
        for family, split in splits
        if len(missing := split.missing(family.required)) < len(family.required)
    }
    if not lacking:
        return f"no family fits: none has such names ({first}). `diptych convert --list` names public files."
    close = min(lacking, key=lambda name: len(lacking[name]))
    return f"no family fits ({first}); closest is {close}, which also has {', '.join(lacking[close][:3])}."


def choose_head(
    found: RecognizedCheckpoint, dim: int, *, asked: str | None, where: object
) -> tuple[Head, Node, int] | None:
    """The head that becomes the task, its node and its number of classes; None where no head fits.

    Args:
        found: with settled sizes.
        dim: width of the pooled vector.
        asked: name of the head; None takes the first that fits.

    Raises:
        ConfigError: the file does not hold the head that was asked for.
    """
    fitting: dict[str, tuple[Head, Node, int]] = {}
    for head in found.family.heads:
        own = taken(found.split.heads, head.table)
        if own and head.name not in fitting and (made := head.task(own, dim, found)):
            fitting[head.name] = (head, *made)
    if asked is not None and asked not in fitting:
        raise ConfigError(
            f"{where}: holds no head {asked!r} that becomes a task; it has {', '.join(fitting) or 'none'}."
        )
    return fitting[asked] if asked is not None else next(iter(fitting.values()), None)


def dropped(
    found: RecognizedCheckpoint, head: Head | None, *, targets: Collection[str], where: object
) -> dict[str, list[str]]:
    """Reasons, and the names of the file that are left out for each.

    Args:
        head: that becomes the task.
        targets: names of the model's weights.

    Raises:
        CheckpointMismatch: names that nothing accounts for.
    """
    split, family = found.split, found.family
    reasons, lost = left_out(split.backbone, family.table, targets=targets)
    rest = {**split.heads, **lost}
    for table in (() if head is None else head.table, family.drops, _others(family, head)):
        more, rest = left_out(rest, table)
        for reason, names in more.items():
            reasons.setdefault(reason, []).extend(names)
    if rest:
        raise CheckpointMismatch(
            f"{where}: {len(rest)} name(s) beside {family.title} mean nothing here: "
            f"{', '.join(list(rest)[:8])}. Remove them, if they are no part of the model."
        )
    result: dict[str, list[str]] = {"state of the optimizer": split.optimizer} if split.optimizer else {}
    for reason, names in reasons.items():
        result[reason] = [
            family.backbone.original(
                name, prefix=split.prefix, head_prefix=split.head_prefix, head=name in split.heads
            )
            for name in names
        ]
    return result


def _others(family: Family, head: Head | None) -> Table:
    """Heads that diptych has a task for, but that are not taken."""
    return tuple(
        Drop(rule.sources[0], f"{rule.sources[0]}: a head beside the one converted")
        for other in family.heads
        if head is None or other.name != head.name
        for rule in other.table
        if isinstance(rule, Rule)
    )
