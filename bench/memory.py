"""The nearest of a million cases: one product over rows that are prepared once, and plain numpy per query."""

import numpy as np
from bench._timing import in_turns, promise

from diptych.memory import Case, Memory, searched

Row = tuple[str, ...]
ROWS, WIDTH = 1_000_000, 256


def rows() -> "list[Row]":
    """What was measured, ours, the other way, and how many times faster ours is."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ROWS, WIDTH), dtype=np.float32)
    case = {"label": "a", "scores": (0.5, 0.5)}
    memory = Memory(
        model="",
        parts=("pooled",),
        classes=("a", "b"),
        cases=tuple(Case(id=str(number), **case) for number in range(ROWS)),  # type: ignore[arg-type]
        vectors=vectors,
        center=np.zeros(WIDTH, np.float32),
    )
    query = vectors[:1] + 0.1

    def plain() -> int:
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        return int((vectors @ query[0] / lengths).argmax())

    assert int(searched(memory, query)[0].rows[0, 0]) == plain()
    ours, other = in_turns(lambda: searched(memory, query), plain)
    return [
        (
            f"10 nearest of {ROWS:,} cases of width {WIDTH}",
            f"{ours * 1000:.0f} ms",
            f"numpy {other * 1000:.0f} ms",
            f"{other / ours:.1f}x",
            promise("< 1 s", ours < 1),
        )
    ]
