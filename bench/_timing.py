"""How times are taken."""

import time
from collections.abc import Callable
from typing import Any


def in_turns(
    ours: Callable[[], Any],
    other: Callable[[], Any],
    *,
    seconds: float = 4,
    least: int = 2,
    most: int = 20,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Seconds of the fastest call of each, taken in turns, so that a busy machine is busy for both.

    Args:
        seconds: after which no further turn begins, once there were `least`.
        warm: call each once before.
        clock: `time.process_time` does not count other work on the machine, nor loader processes.
    """
    if warm:
        ours(), other()
    fast: list[float] = []
    slow: list[float] = []
    while len(fast) < least or (len(fast) < most and sum(fast) + sum(slow) < seconds):
        for call, spent in ((ours, fast), (other, slow)):
            start = clock()
            call()
            spent.append(clock() - start)
    return min(fast), min(slow)


MISSED = "MISSED"


def promise(text: str, kept: bool) -> str:
    """A cell of the last column."""
    return f"{text}: {'kept' if kept else MISSED}"
