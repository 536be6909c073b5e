"""Tables of rules from original parameter names to diptych's. A table works in both directions.

A pattern matches one parameter, or a module with everything below it; each `{}` in it stands for a number. If
several rules match a name, the first one takes it. A table must account for everything: every source name is
used once or dropped with a reason, and every target name is filled with its shape or kept with a reason.
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
    """Converts the tensors `sources` to the tensors `targets`.

    Args:
        there: function of the source tensors that returns the target tensors. The default keeps them.
        back: the inverse of `there`.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    there: Change = tuple
    back: Change = tuple

    def inverse(self) -> "Rule":
        """Return the rule for the other direction."""
        return Rule(self.targets, self.sources, self.back, self.there)


@dataclass(frozen=True, slots=True)
class Drop:
    """Source names that the target has no place for."""

    pattern: str
    reason: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Target names that keep their values if the source does not have them."""

    pattern: str
    reason: str


Table = Sequence[Rule | Drop | Keep]


# Example: `rename("encoder.layer.{}.output.dense", "encoder.layers.{}.feedforward.contract")` takes
# `encoder.layer.3.output.dense.weight` and its `.bias`: the number 3 and the rest of the name are kept. The
# inverse rule leads back from `encoder.layers.3.feedforward.contract.weight`.
def rename(source: str, target: str) -> Rule:
    """Rule for the same tensor under another name."""
    return Rule((source,), (target,))


def transpose(source: str, target: str) -> Rule:
    """Rule for a matrix that the source stores transposed, as Paddle does for the weights of a Linear."""
    return Rule((source,), (target,), _transposed, _transposed)


def split(source: str, targets: tuple[str, ...]) -> Rule:
    """Rule for a tensor that becomes several of equal size, cut along the first dimension."""
    count = len(targets)
    return Rule(
        (source,), targets, lambda tensors: tensors[0].chunk(count), lambda parts: (torch.cat(list(parts)),)
    )


def merge(sources: tuple[str, ...], target: str) -> Rule:
    """Rule for several tensors of equal size that become one, along the first dimension."""
    return split(target, sources).inverse()


def row(source: str, target: str, *, index: int, rows: int) -> Rule:
    """Rule that takes row `index` of a table of `rows`; in the other direction, the other rows are zero."""

    def back(vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        # Zeros are what the originals have there (UNITER's row of regions that are not hidden).
        table = vectors[0].new_zeros(rows, *vectors[0].shape)
        table[index] = vectors[0]
        return (table,)

    return Rule((source,), (target,), lambda tables: (tables[0][index],), back)


def below(table: Table, module: str) -> Table:
    """Return a table whose targets are in a module of the model."""
    return tuple(
        Rule(line.sources, tuple(f"{module}.{target}" for target in line.targets), line.there, line.back)
        if isinstance(line, Rule)
        # Drops name sources, which do not move.
        else Keep(f"{module}.{line.pattern}", line.reason)
        if isinstance(line, Keep)
        else line
        for line in table
    )


def bert_text(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for BERT's embeddings, which most families have."""
    return (
        rename(f"{source}.word_embeddings", f"{target}.words"),
        rename(f"{source}.position_embeddings", f"{target}.positions"),
        rename(f"{source}.token_type_embeddings", f"{target}.segments"),
        rename(f"{source}.LayerNorm", f"{target}.norm"),
    )


def bert_layer(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for a layer of BERT, which most families have."""
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
    """Rules for the heads of masked words and of matching, into the objectives `words` and `matching`.

    Args:
        match: original name of the head of matching.
    """
    return (
        *masked_words(f"{source}.predictions", "objectives.words.head"),
        rename(f"{source}.{match}", "objectives.matching.head.layers.0"),
    )


def masked_words(source: str, target: str) -> tuple[Rule | Drop, ...]:
    """Rules for a head of masked words."""
    return (
        *transform(f"{source}.transform", f"{target}.transform"),
        rename(f"{source}.bias", f"{target}.bias"),
        Drop(f"{source}.decoder", "copies of the word embedding, to which it is tied, and of the bias"),
    )


def transform(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for Linear, GELU and LayerNorm, with which most heads of pre-training begin."""
    return rename(f"{source}.dense", f"{target}.0"), rename(f"{source}.LayerNorm", f"{target}.2")


def convert(source: Weights, table: Table, *, shapes: Mapping[str, Size], where: object) -> dict[str, Tensor]:
    """Return the weights under diptych's names, complete and with the right shapes.

    Args:
        shapes: shape of every target name.
        where: source of the weights, for error messages.

    Raises:
        CheckpointMismatch: lists target names that are not filled, source names that are not used, and wrong
            shapes; or tensors with NaN, infinity or complex numbers.
    """
    try:
        result, unused = _apply(source, [rule for rule in table if isinstance(rule, Rule)])
    # From the changes of rules: a row that the file's table lacks, or a tensor without dimensions.
    except (IndexError, RuntimeError) as error:
        raise CheckpointMismatch(f"{where}: a tensor cannot be converted ({error}).") from error
    _require_numbers(source, unused, where)  # only of used tensors: what is left out may be anything
    drops = [line.pattern for line in table if isinstance(line, Drop)]
    keeps = [line.pattern for line in table if isinstance(line, Keep)]
    wrong = [
        f"{name} {tuple(result[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in result and result[name].shape != shape
    ]
    problems = {
        "unfilled": [name for name in shapes if name not in result and not _fits_any(name, keeps)],
        "unused": [name for name in unused if not _fits_any(name, drops)]
        # A rule made a target that this model does not have: the file belongs to a model with more parts.
        + [name for name in result if name not in shapes],
        "of the wrong shape": wrong,
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names
        )
        raise CheckpointMismatch(
            f"{where}: the weights do not fit the model. {listed}. "
            "Use the model that they were made for, with the same sizes and vocabulary."
        )
    return result


def _require_numbers(source: Weights, unused: Weights, where: object) -> None:
    """Refuse weights that would make every score NaN. The error names them as the file does."""
    # Tensors on the meta device have no numbers to look at; sizes alone are compared there.
    used = {name: tensor for name, tensor in source.items() if name not in unused and not tensor.is_meta}
    broken = {
        "complex numbers": [name for name, tensor in used.items() if tensor.is_complex()],
        "NaN or infinity": [
            name
            for name, tensor in used.items()
            if tensor.is_floating_point() and not _wide(tensor).isfinite().all()
        ],
    }
    for what, names in broken.items():
        if names:
            raise CheckpointMismatch(
                f"{where}: {len(names)} tensor(s) have {what}: {_some(names)}. Use a checkpoint from before "
                "the training diverged, or copy the file again."
            )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.itemsize == 1 else tensor  # `isfinite` does not support 8-bit floats


def left_out(
    source: Weights, table: Table, *, targets: Collection[str] | None = None
) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    """Return the names that a table drops, by reason, and the weights that no line of it matches.

    Args:
        targets: names that can be filled. None means all.
    """
    rules = [rule for rule in table if isinstance(rule, Rule)]
    if targets is not None:
        # A model without a part (a pooler, for example) has no use for its rule,
        # so the Drop behind it gets the name.
        rules = [rule for rule in rules if any(_fits_any(name, rule.targets) for name in targets)]
    _, unused = _apply(source, rules)
    reasons: dict[str, list[str]] = {}
    for line in table:
        if isinstance(line, Drop):
            names = [name for name in unused if _fits_any(name, [line.pattern])]
            # Each name is told once: the first Drop that fits it gives the reason.
            unused = {name: tensor for name, tensor in unused.items() if name not in names}
            if names:
                reasons.setdefault(line.reason, []).extend(names)
    return reasons, unused


def kept(source: Weights, table: Table, targets: Collection[str]) -> dict[str, list[str]]:
    """Return the target names that the source does not fill and the table keeps, by reason."""
    filled, _ = _apply(source, [rule for rule in table if isinstance(rule, Rule)])
    reasons: dict[str, list[str]] = {}
    for line in table:
        if isinstance(line, Keep):
            names = [name for name in targets if name not in filled and _fits_any(name, [line.pattern])]
            if names:
                reasons.setdefault(line.reason, []).extend(names)
    return reasons


def restore(weights: Weights, table: Table) -> dict[str, Tensor]:
    """Return diptych's weights or gradients under their original names; kept names have none.

    Raises:
        CheckpointMismatch: no rule of the table leads to a name.
    """
    # Of alternative spellings, the first one in the table takes a name; see `restore_checkpoint`.
    result, unused = _apply(weights, [rule.inverse() for rule in table if isinstance(rule, Rule)])
    keeps = [rule.pattern for rule in table if isinstance(rule, Keep)]
    unused = {name: tensor for name, tensor in unused.items() if not _fits_any(name, keeps)}
    if unused:
        raise CheckpointMismatch(f"{len(unused)} tensor(s) have no original name: {_some(list(unused))}.")
    return result


def taken(weights: Weights, table: Table) -> dict[str, Tensor]:
    """Return the weights that a rule of the table uses."""
    _, unused = _apply(weights, [rule for rule in table if isinstance(rule, Rule)])
    return {name: tensor for name, tensor in weights.items() if name not in unused}


def fitting(weights: Weights, table: Table, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """The weights under our names, without those that have no target of their shape."""
    made, _ = _apply(weights, [rule for rule in table if isinstance(rule, Rule)])
    # Not `convert`: a pre-training may go on with other objectives, so names may be left over on both sides.
    return {name: one for name, one in made.items() if shapes.get(name) == one.shape}


def load_into(module: nn.Module, weights: Weights, table: Table, *, where: object) -> None:
    """Fill a module. After an error, the module is unchanged.

    Raises:
        CheckpointMismatch: see `convert`; or weights are integers, as quantized ones are.
    """
    state = module.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    made = convert(weights, table, shapes=shapes, where=where)
    # `load_state_dict` would cast integers silently, and quantized weights lack their scale.
    whole = [name for name in made if state[name].is_floating_point() and not made[name].is_floating_point()]
    if whole:
        raise CheckpointMismatch(
            f"{where}: {len(whole)} weight(s) are integers: {_some(whole)}; expected floating-point numbers. "
            "If they were quantized, use the checkpoint from before the quantization."
        )
    module.load_state_dict(made, strict=False)  # `convert` has checked that only kept names are missing


def _apply(source: Weights, rules: Sequence[Rule]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Apply rules; returns the targets, and the source tensors that no rule used."""
    result: dict[str, Tensor] = {}
    unused = dict(source)
    for rule in rules:
        for names, targets in list(_matches(rule, unused)):  # a list: the loop removes from `unused`
            tensors = rule.there([unused.pop(name) for name in names])
            for target, tensor in zip(targets, tensors, strict=True):
                # Two spellings of one tensor in one file: taking either would be a guess.
                if target in result:
                    raise CheckpointMismatch(
                        f"{', '.join(names)} and another tensor both become {target}; expected one of them."
                    )
                result[target] = tensor
    return result, unused


def _matches(rule: Rule, names: Weights) -> Iterator[tuple[list[str], list[str]]]:
    """Source and target names of every place where all sources of a rule exist."""
    # The first source finds the places; the others must have the same numbers and the same end.
    first = _regex(rule.sources[0])
    for name in names:
        if match := first.fullmatch(name):
            # The numbers at `{}`, and the part of the name below the pattern, such as `.weight`.
            *numbers, below = match.groups(default="")
            sources = [pattern.format(*numbers) + below for pattern in rule.sources]
            if all(source in names for source in sources):
                yield sources, [pattern.format(*numbers) + below for pattern in rule.targets]


def _fits_any(name: str, patterns: Sequence[str]) -> bool:
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def _regex(pattern: str) -> re.Pattern[str]:
    # `re.compile` keeps recent patterns itself, so there is no cache here.
    # `(\..+)?` stops at a point, so `classifier` does not take `classifier2.weight`.
    return re.compile(r"(\d+)".join(map(re.escape, pattern.split("{}"))) + r"(\..+)?")


def _transposed(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensor.T for tensor in tensors]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
