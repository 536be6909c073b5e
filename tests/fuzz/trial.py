"""One case: make the input, run the command, and hold what happened against what is promised."""

import random
import re
import shutil
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fuzz import accidents
from tests.fuzz.case import TARGETS, Case, Target
from tests.fuzz.command import Outcome, contents, run


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a case.

    Args:
        kind: `done` for exit code 0, `refused` for one clear error, `fault` for a broken promise.
        faults: signatures; cases of one cause have one.
    """

    target: str
    number: int
    seed: int
    kind: str
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    command: tuple[str, ...]
    message: str
    seconds: float
    peak: int

    def tree(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


SHORT = (  # accidents that `make test` tries too; the others take too long
    *(
        "kill import",
        "kill convert",
        "kill clean",
        "kill ensemble",
        "disk convert",
        "disk export lmdb",
        "disk predict",
    ),
    *("taken import", "taken convert", "taken ensemble", "taken clean"),
)
RESUMED = ("train", "study", "extract")  # may leave what the same command goes on with
CACHES = ("out/hashes.json",)
SLOW = ("backbone",)  # imports transformers in every case


def short() -> list[tuple[str, int]]:
    """The cases of `make test`: one of every target."""
    load()
    return [(name, 1) for name in (*TARGETS, *SHORT) if name not in SLOW]


def names() -> dict[str, float]:
    """All targets and their shares of the cases."""
    load()
    return {name: one.weight for name, one in TARGETS.items()} | dict.fromkeys(accidents.ACCIDENTS, 0.6)


def load() -> None:
    """Fill the list of targets."""
    from tests.fuzz import data_targets, feature_targets, state_targets, weight_targets  # noqa: F401


def attempt(name: str, number: int, seed: int, work: Path, *, patience: float, keep: bool = False) -> Trial:
    """Run case `number` of a target; the same numbers give the same case."""
    load()
    box = work / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{number}"
    shutil.rmtree(box, ignore_errors=True)
    (box / "here").mkdir(parents=True)
    rng = random.Random(f"{seed}/{name}/{number}")
    case = Case(lab=work / "lab", folder=box / "here", number=number, rng=rng, marker=box / "marker")
    command: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name in TARGETS:
                command = TARGETS[name].make(case)
                outcome, faults = _judge(TARGETS[name], command, case, patience)
            else:
                outcome, faults = accidents.ACCIDENTS[name](case, patience)
    except Exception:
        outcome = Outcome(code=None, printed=traceback.format_exc(), seconds=0, peak=0)
        faults = [f"the test itself: {outcome.printed.strip().splitlines()[-1]}"]
    if not keep:
        shutil.rmtree(box, ignore_errors=True)
    return Trial(
        target=name,
        number=number,
        seed=seed,
        kind="fault" if faults else "done" if outcome.code == 0 else "refused",
        faults=tuple(faults),
        notes=tuple(case.notes),
        command=tuple(command),
        message=outcome.printed[-3000:] if faults else outcome.message,
        seconds=outcome.seconds,
        peak=outcome.peak,
    )


def _judge(target: Target, command: list[str], case: Case, patience: float) -> tuple[Outcome, list[str]]:
    box = case.folder.parent
    before, seeds = contents(case.folder), contents(case.lab, deep=False)
    outcome = run(command, case.folder, box, patience=patience)
    checks = command[0] in ("check", "doctor")
    # 1 of these: what was read is not as it should be.
    faults = outcome.faults((0, 1, 2) if checks or command[0] == "audit-log" else (0, 2))
    if case.whole and outcome.code != 0 and not (checks and outcome.code == 1):
        faults.append("the whole input is refused")
    if any(one.name not in ("here", "tmp") for one in box.iterdir()):
        faults.append("executed, or written outside")
    after = contents(case.folder)
    own = tuple(one for one in (*before, *after) if one.partition("/")[0] in target.writes)
    if contents(case.lab, deep=False) != seeds or any(
        before[one] != after.get(one) for one in before if one not in own
    ):
        faults.append("an input changed")
    if outcome.code is not None and any(
        ".part" in one.rpartition("/")[2] and not _resumable(one) for one in after if one not in before
    ):
        faults.append("litter")
    different = (one for one in {**before, **after} if before.get(one) != after.get(one))
    changed = sorted(one for one in different if one not in CACHES)
    if outcome.code == 2 and command[0] not in RESUMED and changed:
        faults.append(f"half-written: {re.sub(r'[0-9a-z_]{8}', '*', changed[0])} by {command[0]}")
    return outcome, faults


def _resumable(name: str) -> bool:
    """What an import or an extraction goes on with."""
    return ".partial" in name
