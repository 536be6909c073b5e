"""What a memory said to one example, on the command line."""

from typing import TYPE_CHECKING

from diptych.cli.output import table

if TYPE_CHECKING:
    from diptych.memory import Memory, Recall


def say_recall(memory: "Memory", recall: "Recall") -> None:
    """Print the cases that decided most, and the model's verdict without them."""
    rows = [
        (one.case.id, one.case.policy, one.case.label, f"{one.similarity:.3f}", f"{one.contribution:+.2f}",
         one.case.text[:60])
        for one in recall.cases
    ]  # fmt: skip
    if rows:
        table("", ("case", "policy", "label", "similarity", "log-odds", "text"), rows)
    alone = ", ".join(f"{name} {score:.4f}" for name, score in recall.before.items())
    print(f"{said(memory, recall)}; the model alone: {alone}")


def said(memory: "Memory", recall: "Recall") -> str:
    """Whether cases changed the verdict, in a few words."""
    if memory.learned is None:
        return "the memory is not fitted, so its cases change no score"
    voting = [one for one in recall.cases if one.contribution]
    if not voting:
        return "no case is near enough to vote"
    return f"because of {' and '.join(one.case.id for one in voting)}"
