"""From the parameter names of others to ours, as a table that can be read backwards.

A pattern names one parameter, or a module with everything below it; each `{}` in it stands for a number.
Where several rules fit a name, the first one takes it. A table must account for everything: every source name
is used once or dropped with a reason, every target name is filled with its shape or kept with a reason.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor, nn

from diptych.errors import CheckpointMismatch

Weights = Mapping[str, Tensor]
Change = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Tensors named `sources` become tensors named `targets`; `back` undoes what `there` does."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    there: Change = tuple
    back: Change = tuple

    def inverse(self) -> "Rule":
        return Rule(self.targets, self.sources, self.back, self.there)


@dataclass(frozen=True, slots=True)
class Drop:
    """Names of the source that have no place in the target."""

    pattern: str
    reason: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Names of the target that stay as they are where the source does not have them."""

    pattern: str
    reason: str


Table = Sequence[Rule | Drop | Keep]


def rename(source: str, target: str) -> Rule:
    """The same tensor under another name."""
    return Rule((source,), (target,))


def transpose(source: str, target: str) -> Rule:
    """A matrix stored the other way round, as Paddle stores the weights of Linears."""
    return Rule((source,), (target,), _transposed, _transposed)


def split(source: str, targets: tuple[str, ...]) -> Rule:
    """One tensor holds several of equal size, one after the other along the first dimension."""
    count = len(targets)
    return Rule((source,), targets, lambda one: one[0].chunk(count), lambda many: (torch.cat(list(many)),))


def merge(sources: tuple[str, ...], target: str) -> Rule:
    """Several tensors of equal size are one, along the first dimension."""
    return split(target, sources).inverse()


def row(source: str, target: str, *, index: int, rows: int) -> Rule:
    """Row `index` of a table of `rows`; on the way back the other rows are zero."""

    def back(vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        table = vectors[0].new_zeros(rows, *vectors[0].shape)
        table[index] = vectors[0]
        return (table,)

    return Rule((source,), (target,), lambda tables: (tables[0][index],), back)


def below(table: Table, module: str) -> Table:
    """A table whose targets lie in a module of the model."""
    return tuple(
        Rule(line.sources, tuple(f"{module}.{target}" for target in line.targets), line.there, line.back)
        if isinstance(line, Rule)
        else Keep(f"{module}.{line.pattern}", line.reason)
        if isinstance(line, Keep)
        else line
        for line in table
    )


def bert_text(source: str, target: str) -> tuple[Rule, ...]:
    """BERT's embedding module, which most families share."""
    return (
        rename(f"{source}.word_embeddings", f"{target}.words"),
        rename(f"{source}.position_embeddings", f"{target}.positions"),
        rename(f"{source}.token_type_embeddings", f"{target}.segments"),
        rename(f"{source}.LayerNorm", f"{target}.norm"),
    )


def bert_layer(source: str, target: str) -> tuple[Rule, ...]:
    """One layer of BERT, which most families share."""
    return (
        rename(f"{source}.attention.self.query", f"{target}.attention.query"),
        rename(f"{source}.attention.self.key", f"{target}.attention.key"),
        rename(f"{source}.attention.self.value", f"{target}.attention.value"),
        rename(f"{source}.attention.output.dense", f"{target}.attention.out"),
        rename(f"{source}.attention.output.LayerNorm", f"{target}.attention.norm"),
        rename(f"{source}.intermediate.dense", f"{target}.feedforward.expand"),
        rename(f"{source}.output.dense", f"{target}.feedforward.contract"),
        rename(f"{source}.output.LayerNorm", f"{target}.feedforward.norm"),
    )


def bert_heads(source: str = "cls", *, match: str = "seq_relationship") -> tuple[Rule | Drop, ...]:
    """The heads of masked words and of matching, into a `Pretrain` with objectives of these names.

    Args:
        match: what the original calls the second.
    """
    return (
        *masked_words(f"{source}.predictions", "objectives.words.head"),
        rename(f"{source}.{match}", "objectives.matching.head.layers.0"),
    )


def masked_words(source: str, target: str) -> tuple[Rule | Drop, ...]:
    """One head of masked words."""
    return (
        *transform(f"{source}.transform", f"{target}.transform"),
        rename(f"{source}.bias", f"{target}.bias"),
        Drop(f"{source}.decoder", "the word table, to which it is tied, and the bias once more"),
    )


def transform(source: str, target: str) -> tuple[Rule, ...]:
    """Linear, GELU, LayerNorm: what most heads of pre-training begin with."""
    return rename(f"{source}.dense", f"{target}.0"), rename(f"{source}.LayerNorm", f"{target}.2")


def convert(source: Weights, table: Table, *, shapes: Mapping[str, Size], where: object) -> dict[str, Tensor]:
    """The weights under our names, complete and of the right shapes.

    Args:
        shapes: of every target name.
        where: what the weights come from, for the error message.

    Raises:
        CheckpointMismatch: lists what stays unfilled, what stays unused and what has another shape; or
            tensors that hold NaN, infinity or complex numbers.
    """
    try:
        result, unused = _apply(source, [rule for rule in table if isinstance(rule, Rule)])
    except (IndexError, RuntimeError) as error:
        raise CheckpointMismatch(f"{where}: a tensor cannot be converted ({error}).") from error
    _require_numbers(source, unused, where)
    drops = [rule.pattern for rule in table if isinstance(rule, Drop)]
    keeps = [rule.pattern for rule in table if isinstance(rule, Keep)]
    wrong = [
        f"{name} {tuple(result[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in result and result[name].shape != shape
    ]
    problems = {
        "unfilled": [name for name in shapes if name not in result and not _fits_any(name, keeps)],
        "unused": [name for name in unused if not _fits_any(name, drops)]
        + [name for name in result if name not in shapes],
        "of the wrong shape": wrong,
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
        raise CheckpointMismatch(
            f"{where}: the weights do not fit the model. {found}. "
            "Take the model that they were made for, with the same sizes and vocabulary."
        )
    return result


def _require_numbers(source: Weights, unused: Weights, where: object) -> None:
    """Refuse weights that make every score NaN, under the names that the file has for them."""
    used = {name: one for name, one in source.items() if name not in unused and not one.is_meta}
    broken = {
        "complex numbers": [name for name, one in used.items() if one.is_complex()],
        "NaN or infinity": [
            name for name, one in used.items() if one.is_floating_point() and not _wide(one).isfinite().all()
        ],
    }
    for what, names in broken.items():
        if names:
            raise CheckpointMismatch(
                f"{where}: {len(names)} tensor(s) hold {what}: {_some(names)}. Take a checkpoint from before "
                "the training went wrong, or copy it again."
            )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.itemsize == 1 else tensor  # torch cannot test numbers of 8 bits


def left_out(
    source: Weights, table: Table, *, targets: Collection[str] | None = None
) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    """Names that a table drops, by reason, and the weights that no line of it accounts for.

    Args:
        targets: names that can be filled; None means all.
    """
    rules = [rule for rule in table if isinstance(rule, Rule)]
    if targets is not None:
        rules = [rule for rule in rules if any(_fits_any(name, rule.targets) for name in targets)]
    _, unused = _apply(source, rules)
    reasons: dict[str, list[str]] = {}
    for line in table:
        if isinstance(line, Drop):
            names = [name for name in unused if _fits_any(name, [line.pattern])]
            unused = {name: one for name, one in unused.items() if name not in names}
            if names:
                reasons.setdefault(line.reason, []).extend(names)
    return reasons, unused


def kept(source: Weights, table: Table, targets: Collection[str]) -> dict[str, list[str]]:
    """Names that a table lets stay as they are, by reason, where the source does not fill them."""
    filled, _ = _apply(source, [rule for rule in table if isinstance(rule, Rule)])
    reasons: dict[str, list[str]] = {}
    for line in table:
        if isinstance(line, Keep):
            names = [name for name in targets if name not in filled and _fits_any(name, [line.pattern])]
            if names:
                reasons.setdefault(line.reason, []).extend(names)
    return reasons


def restore(weights: Weights, table: Table) -> dict[str, Tensor]:
    """The way back: our weights, or gradients, under the names of the original, where it has one.

    Raises:
        CheckpointMismatch: a name that the table does not lead to.
    """
    result, unused = _apply(weights, [rule.inverse() for rule in table if isinstance(rule, Rule)])
    keeps = [rule.pattern for rule in table if isinstance(rule, Keep)]
    unused = {name: one for name, one in unused.items() if not _fits_any(name, keeps)}
    if unused:
        raise CheckpointMismatch(f"{len(unused)} name(s) have no original: {_some(list(unused))}.")
    return result


def taken(weights: Weights, table: Table) -> dict[str, Tensor]:
    """The weights for which the table has a place."""
    _, unused = _apply(weights, [rule for rule in table if isinstance(rule, Rule)])
    return {name: one for name, one in weights.items() if name not in unused}


def load_into(module: nn.Module, weights: Weights, table: Table, *, where: object) -> None:
    """Fill a module; it is left untouched when anything is amiss.

    Raises:
        CheckpointMismatch: see `convert`.
    """
    state = module.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    made = convert(weights, table, shapes=shapes, where=where)
    whole = [name for name in made if state[name].is_floating_point() and not made[name].is_floating_point()]
    if whole:
        raise CheckpointMismatch(
            f"{where}: {len(whole)} weight(s) are whole numbers: {_some(whole)}. Were they quantized? Take "
            "the checkpoint from before that."
        )
    module.load_state_dict(made, strict=False)


def _apply(source: Weights, rules: Sequence[Rule]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the rules make of the source, and what none of them took."""
    result: dict[str, Tensor] = {}
    unused = dict(source)
    for rule in rules:
        for names, targets in list(_matches(rule, unused)):
            tensors = rule.there([unused.pop(name) for name in names])
            for target, tensor in zip(targets, tensors, strict=True):
                if target in result:
                    raise CheckpointMismatch(f"{', '.join(names)}: two sources lead to {target}.")
                result[target] = tensor
    return result, unused


def _matches(rule: Rule, names: Weights) -> Iterator[tuple[list[str], list[str]]]:
    first = _regex(rule.sources[0])
    for name in names:
        if found := first.fullmatch(name):
            *numbers, below = found.groups(default="")
            sources = [pattern.format(*numbers) + below for pattern in rule.sources]
            if all(one in names for one in sources):
                yield sources, [pattern.format(*numbers) + below for pattern in rule.targets]


def _fits_any(name: str, patterns: Sequence[str]) -> bool:
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(r"(\d+)".join(map(re.escape, pattern.split("{}"))) + r"(\..+)?")


def _transposed(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensor.T for tensor in tensors]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
