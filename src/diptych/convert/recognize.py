"""Recognition of weight files: their family, the head that becomes the task, and what is left out."""

from collections.abc import Collection, Sequence

from diptych.convert.family import Family, Head, Node, RecognizedCheckpoint
from diptych.convert.rules import Drop, Rule, Table, Weights, left_out, taken
from diptych.convert.split import Split
from diptych.errors import CheckpointMismatch, ConfigError, first_five, nearest


def recognize(
    weights: Weights, families: Sequence[Family], *, where: object, asked: str | None
) -> RecognizedCheckpoint:
    """Return the one family whose tensor names a file has. The name of the file does not matter.

    Args:
        where: source of the weights, for error messages.
        asked: expected family. None accepts any.

    Raises:
        ConfigError: the expected family does not exist.
        CheckpointMismatch: no family fits, several fit, or another one than expected.
    """
    names = [family.name for family in families]
    if asked is not None and asked not in names:
        raise ConfigError(
            f"there is no family {asked!r}.{nearest(asked, names)} Expected one of {', '.join(names)}."
        )
    # Most families share one description of the backbone; split a file once for each description.
    by_backbone = {backbone: backbone.split(weights) for backbone in {family.backbone for family in families}}
    splits = [(family, split) for family in families if (split := by_backbone[family.backbone]) is not None]
    fitting = [(family, split) for family, split in splits if not split.missing(family.required)]
    # Most families contain a BERT and so have all names that BERT requires; the most specific one counts.
    finest = [
        (family, split)
        for family, split in fitting
        if not any(family.required < other.required for other, _ in fitting)
    ]
    if len(finest) > 1 and asked is not None:
        # What the user says decides between families that fit equally, never against what the names show.
        finest = [(family, split) for family, split in finest if family.name == asked] or finest
    if len(finest) != 1:
        raise CheckpointMismatch(f"{where}: {_seen(weights, splits, [family.name for family, _ in finest])}")
    [(family, split)] = finest
    if asked not in (None, family.name):
        raise CheckpointMismatch(
            f"{where}: weights of {family.title}, recognized by {', '.join(sorted(family.required))}; "
            f"expected {asked}. Leave out the family, or set it to {family.name}."
        )
    try:
        sizes = family.sizes(split)
    # From looking up a tensor, or a dimension that it does not have.
    except (KeyError, IndexError) as error:
        raise CheckpointMismatch(
            f"{where}: weights of {family.title}, but {error.args[0]} is missing, which shows a size. Was a "
            "part lost? Download or copy the file again."
        ) from error
    return RecognizedCheckpoint(family=family, split=split, sizes=sizes)


def _seen(weights: Weights, splits: Sequence[tuple[Family, Split]], fitting: list[str]) -> str:
    """Describe weights that no family fits, or several: their names, and the closest family."""
    first = f"{len(weights)} tensors, first {', '.join(list(weights)[:4])}"
    if fitting:
        return f"fits {' and '.join(fitting)} ({first}); set family= to one of them."
    lacking = {
        family.name: missing
        for family, split in splits
        if len(missing := split.missing(family.required)) < len(family.required)
    }
    if not lacking:
        return f"no family fits: none has such names ({first}). `diptych convert --list` shows public files."
    # The closest family says most: usually a part of the file was lost, or renamed by a newer version.
    close = min(lacking, key=lambda name: len(lacking[name]))
    return (
        f"no family fits ({first}); the closest is {close}, but {', '.join(lacking[close][:3])} is missing."
    )


def choose_head(
    found: RecognizedCheckpoint, dim: int, *, asked: str | None, where: object
) -> tuple[Head, Node, int] | None:
    """Choose the head that becomes the task.

    Args:
        found: the recognized file, with the final sizes.
        dim: width of the pooled vector.
        asked: name of the head. None takes the first one that fits.

    Returns:
        The head, the config of the task and its number of classes; None if no head fits.

    Raises:
        ConfigError: the file does not have the head `asked`.
    """
    fitting: dict[str, tuple[Head, Node, int]] = {}
    for head in found.family.heads:
        # The same name may stand for several layouts; the first whose tensors fit takes it.
        own = taken(found.split.heads, head.table)
        if own and head.name not in fitting and (made := head.task(own, dim, found)):
            fitting[head.name] = (head, *made)
    if asked is not None and asked not in fitting:
        raise ConfigError(
            f"{where}: no head {asked!r} that can become a task; expected one of "
            f"{', '.join(fitting) or 'none'}."
        )
    return fitting[asked] if asked is not None else next(iter(fitting.values()), None)


def dropped(
    found: RecognizedCheckpoint, head: Head | None, *, targets: Collection[str], where: object
) -> dict[str, list[str]]:
    """List the names of a file that are left out, by reason.

    Args:
        head: head that becomes the task.
        targets: names of the model's weights.

    Raises:
        CheckpointMismatch: names are unknown.
    """
    split, family = found.split, found.family
    # Tables in the order of their claims: the model's, the chosen head's, the family's drops, other heads.
    reasons, lost = left_out(split.backbone, family.table, targets=targets)
    rest = {**split.heads, **lost}
    for table in (() if head is None else head.table, family.drops, _others(family, head)):
        more, rest = left_out(rest, table)
        for reason, names in more.items():
            reasons.setdefault(reason, []).extend(names)
    if rest:
        raise CheckpointMismatch(
            f"{where}: {len(rest)} name(s) that {family.title} does not have: {first_five(rest)}. "
            "Remove these tensors if the model does not need them."
        )
    result: dict[str, list[str]] = {"state of the optimizer": split.optimizer} if split.optimizer else {}
    for reason, names in reasons.items():
        result[reason] = [
            family.backbone.original(
                # Told by the names in the file, so that users find them there.
                name,
                prefix=split.prefix,
                head_prefix=split.head_prefix,
                head=name in split.heads,
            )
            for name in names
        ]
    return result


def _others(family: Family, head: Head | None) -> Table:
    """Drops for the heads that diptych has a task for, but that were not chosen."""
    return tuple(
        Drop(rule.sources[0], f"{rule.sources[0]}: another head than the converted one")
        for other in family.heads
        if head is None or other.name != head.name
        for rule in other.table
        if isinstance(rule, Rule)
    )
