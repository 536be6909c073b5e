"""Small memories."""

from collections.abc import Sequence

import numpy as np

from diptych.memory import Case, Memory

CLASSES = ("benign", "hateful")


def case(id: str, label: str = "hateful", policy: str = "main", score: float = 0.1) -> Case:
    return Case(id=id, label=label, policy=policy, scores=(1 - score, score), text=f"text of {id}")


def memory_of(*vectors: Sequence[float], labels: Sequence[str] = ()) -> Memory:
    """Cases `0`, `1`, ... with these vectors, hateful unless labels are given."""
    given = labels or ["hateful"] * len(vectors)
    return Memory(
        model="m",
        parts=("pooled",),
        classes=CLASSES,
        cases=tuple(case(str(number), label) for number, label in enumerate(given)),
        vectors=np.array(vectors, np.float32).reshape(len(vectors), -1),
        center=np.zeros(len(vectors[0]) if vectors else 2, np.float32),
    )
