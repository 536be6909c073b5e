"""How long the command line lets a person wait, and what importing costs."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from bench._timing import promise

LIMIT = 0.4  # seconds that help may take

Row = tuple[str, str, str, str, str]


def rows() -> Iterator[Row]:
    """What was run, wall time from start to end, the same of a plain Python, ratio, and what is promised."""
    plain = fastest("-c", "pass")
    for words in (("--help",), ("ls",), ("train", "--help"), ("predict", "--help")):
        mine = fastest("-m", "diptych.cli", *words)
        yield shown(f"diptych {' '.join(words)}", mine, "python -c pass", plain, mine < LIMIT)
    torch = fastest("-c", "import torch")
    for what, module in (("predicts", "predict"), ("checks a data set", "check"), ("trains", "recipe")):
        yield shown(
            f"import of all that {what}", fastest("-c", f"import diptych.{module}"), "import torch", torch
        )


def shown(what: str, mine: float, name: str, other: float, kept: bool | None = None) -> Row:
    promised = "" if kept is None else promise(f"< {LIMIT} s", kept)
    return what, f"{mine:.2f} s", f"{name} {other:.2f} s", f"{other / mine:.2f}x", promised


def fastest(*words: str, times: int = 4) -> float:
    """Wall seconds of the fastest of a few processes; the first one fills the disk cache."""
    return min(seconds([sys.executable, *words]) for _ in range(times))


def seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
