"""A memory of judged examples: what a policy has just learned, beside what a model was trained on.

    asked = ask(predictor, examples, memory.parts)         scores and vectors, by the model
    memory = memory.with_cases(cases, asked.vectors)       counts at once; nothing is trained
    recall_all(memory, asked.vectors, asked.scores)        scores with the memory, and because of which cases
    fit_memory(memory, ...)                                how far a case reaches, and how much it weighs

Every policy of a memory votes on its own. A memory is a folder; it names the model it was made with, and
refuses any other.
"""

from diptych.memory.ask import (
    Asked,
    ask,
    ask_meme,
    case_id,
    content_id,
    require_labels,
    usual_parts,
    vectors_of,
    verdict_of,
)
from diptych.memory.fit import FitReport, fit_memory
from diptych.memory.recall import Recall, Recalled, recall_all, searched
from diptych.memory.store import DEFAULT, LONGEST, Case, Learned, Memory, change

__all__ = [
    "DEFAULT",
    "LONGEST",
    "Asked",
    "Case",
    "FitReport",
    "Learned",
    "Memory",
    "Recall",
    "Recalled",
    "ask",
    "ask_meme",
    "case_id",
    "change",
    "content_id",
    "fit_memory",
    "recall_all",
    "require_labels",
    "searched",
    "usual_parts",
    "vectors_of",
    "verdict_of",
]
