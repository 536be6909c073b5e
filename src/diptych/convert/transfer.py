"""What a task takes over from the heads of a checkpoint: answers by spelling, objectives by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from diptych.convert.families import family_of
from diptych.convert.lxmert import transfer_answers
from diptych.convert.rules import fitting
from diptych.errors import CheckpointMismatch, ConfigError, first_five
from diptych.nn import ClassifierHead
from diptych.tasks import Answer, Pretrain, Translation
from diptych.tasks.objectives import Answers

HEAD = "answer_head.logit_fc"  # LXMERT's name of the answer head


@dataclass(frozen=True, kw_only=True)
class HeadWeights:
    """The heads of a checkpoint beside the model that it filled.

    Args:
        where: the checkpoint, for messages.
        weights: heads of an original file, by their names there.
        task: of a diptych bundle.
    """

    where: Path
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    task: nn.Module | None = None

    @property
    def answer_head(self) -> dict[str, Tensor]:
        """The answer head of pre-training under LXMERT's names; empty if there is none."""
        if self.task is not None:
            objective = _answers_of(self.task)
            state = {} if objective is None else objective.head.layers.state_dict()
            return {f"{HEAD}.{name}": one for name, one in state.items()}
        # LXMERT's names serve both kinds of checkpoint, so `transfer_answers` knows one layout.
        return {name: one for name, one in self.weights.items() if name.startswith(f"{HEAD}.")}

    @property
    def learned(self) -> tuple[str, ...] | None:
        """The answers that a bundle learned, in the order of the rows; an original file does not say them."""
        objective = None if self.task is None else _answers_of(self.task)
        return None if objective is None else objective.targets.answers


def _answers_of(task: nn.Module) -> Answers | None:
    """The objective of answers in a pre-training."""
    objectives = task.objectives.values() if isinstance(task, Pretrain) else ()
    return next((one for one in objectives if isinstance(one, Answers)), None)


def start_task(
    task: nn.Module, model: nn.Module, heads: HeadWeights, *, learned: Sequence[str] | None
) -> str | None:
    """Start a task of answers, a translation, or a pre-training that goes on, from the heads of a checkpoint.

    Answers are found by their normalized spelling, never by the number of their row. Those that the
    checkpoint did not learn start from zero.

    Args:
        learned: the answers of an original file; those of a bundle are known.

    Returns:
        What was taken over, for people; None for another task, or if there was nothing.

    Raises:
        ConfigError: nothing says what the rows of the answer head mean, or there is no answer head.
        CheckpointMismatch: the number of answers is not that of the rows, or the head has other sizes.
    """
    if isinstance(task, Translation):
        told = _start_objectives(task, model, heads)
        return f"from {heads.where.name}: {told[0]}" if told else None
    if not isinstance(task, Answer | Pretrain):
        return None
    told = []
    if isinstance(task, Pretrain):
        told += _start_objectives(task, model, heads)
    head, answers = _answer_head(task)
    # A bundle knows its answers; a list that the user gives is for original files only.
    known = heads.learned if heads.learned is not None else learned
    if head is not None and heads.answer_head and (known is not None or isinstance(task, Answer)):
        told.append(_start_answers(head, answers, heads, known))
    elif head is not None and learned is not None and not heads.answer_head:
        raise ConfigError(
            f"{heads.where}: weights.answers is given, but the checkpoint has no answer head. Take one that "
            "was pre-trained with questions, or set weights.answers=false."
        )
    return f"from {heads.where.name}: {'; '.join(told)}" if told else None


def _answer_head(task: Answer | Pretrain) -> tuple[ClassifierHead | None, tuple[str, ...]]:
    """The answer head of a task and its answers."""
    if isinstance(task, Answer):
        return task.head if isinstance(task.head, ClassifierHead) else None, task.answers
    objective = _answers_of(task)
    return (None, ()) if objective is None else (objective.head, objective.targets.answers)


def _start_answers(
    head: ClassifierHead, answers: Sequence[str], heads: HeadWeights, learned: Sequence[str] | None
) -> str:
    weights, where = heads.answer_head, f"{heads.where}: the answer head"
    # Layer 3 is the last one, behind Linear, GELU and LayerNorm; its bias has one number per answer.
    rows = max((len(one) for name, one in weights.items() if name.endswith(".3.bias")), default=0)
    if learned is None:
        raise ConfigError(
            f"{where} has {rows:,} rows, and the file does not name their answers. Set "
            "weights.answers=all_ans.json, the list that it was trained with, or weights.answers=false to "
            "start with a new head."
        )
    if len(learned) != rows:
        raise CheckpointMismatch(
            f"{where} has {rows:,} rows, but the list has {len(learned):,} answers. Give the list that it "
            "was trained with as weights.answers=FILE."
        )
    unknown = transfer_answers(head, weights, learned=learned, answers=answers, where=where)
    missing = f" (not {first_five(map(repr, unknown))})" if unknown else ""
    return f"{len(answers) - len(unknown):,} of {len(answers):,} answers{missing}"


def _start_objectives(task: Pretrain | Translation, model: nn.Module, heads: HeadWeights) -> list[str]:
    """Fill the heads that both have, except that of answers. Translation has the head of masked words."""
    own = "" if isinstance(task, Pretrain) else "objectives.words."
    objectives = task.objectives.items() if isinstance(task, Pretrain) else ()
    # Rows of answers mean other answers here, so they go by spelling in `_start_answers`.
    answers = [f"objectives.{name}." for name, one in objectives if isinstance(one, Answers)]
    shapes = {
        own + name: one.shape
        for name, one in task.state_dict().items()
        if not name.startswith(tuple(answers))
    }
    if heads.task is not None:
        before = "" if isinstance(heads.task, Pretrain) else own
        state = {before + name: one for name, one in heads.task.state_dict().items()}
        found = {name: one for name, one in state.items() if shapes.get(name) == one.shape}
    else:
        tables = [head.table for head in family_of(model, heads.where).heads if head.name == "pre-training"]
        found = fitting(heads.weights, tables[0], shapes) if tables else {}
    # An objective that the checkpoint lacks starts new, as in the originals' non-strict loading.
    task.load_state_dict({name.removeprefix(own): one for name, one in found.items()}, strict=False)
    filled = {name.split(".")[1] for name in found}
    names = [name for name in getattr(task, "objectives", ("words",)) if name in filled]
    return [f"the heads of {', '.join(names)}"] if names else []
