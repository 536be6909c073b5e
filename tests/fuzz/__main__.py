"""Hostile input for every reader; kills, full disks, taken places.

    make fuzz CASES=2000 SEED=1
    python -m tests.fuzz --only '^tsv$' --case 17 --seed 1 --keep

A case is its target, its number and the seed: the same three give the same input. Case 0 is the whole input,
which must be read.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from tests.fuzz import seeds, trial

WARM = (
    "h5py",
    "lmdb",
    "pydantic",
    "diptych.recipe.run",
    "diptych.convert",
    "diptych.detect",
    "diptych.study",
    "diptych.ensemble",
    "diptych.evaluate",
)


def main(words: Sequence[str] | None = None) -> int:
    options = _options(words)
    work = options.work or Path(tempfile.mkdtemp(prefix="diptych-fuzz-"))
    shares = {name: share for name, share in trial.names().items() if re.search(options.only, name)}
    if not shares:
        raise SystemExit(f"--only {options.only!r} names no target.")
    begin = time.perf_counter()
    _warm()
    if not (work / "lab" / "built.txt").exists():
        seeds.build((work / "lab").absolute())
    one = partial(_one, options.seed, work.absolute(), options.patience, options.keep)
    plan = _plan(shares, options.cases) if options.case is None else [(name, options.case) for name in shares]
    if options.short:
        plan = [(name, number) for name, number in trial.short() if name in shares]
    found = []
    try:
        for tried in _spread(one, plan, options.jobs):
            found.append(tried)
            if options.json:
                with open(options.json, "a", encoding="utf-8") as file:
                    file.write(json.dumps(tried.tree()) + "\n")
            if options.case is not None:
                parts = (tried.notes, tried.command, tried.message)
                print(tried.target, tried.number, tried.kind, list(tried.faults), *parts, sep="\n")
    finally:
        if not options.keep and options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    _table(found, time.perf_counter() - begin, options.seed)
    return int(any(tried.faults for tried in found))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", type=int, default=2000, help="about so many, shared out among the targets (default: 2000)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="a regular expression of names of targets")
    parser.add_argument("--case", type=int, help="this case only, with what it printed")
    parser.add_argument("--short", action="store_true", help="the cases of `make journey`")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at the same time")
    parser.add_argument(
        "--patience", type=float, default=20, help="seconds until a command counts as hanging (default: 20)"
    )
    parser.add_argument(
        "--work", type=Path, help="folder of the seeds and cases, kept (default: a temporary one)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folders of the cases")
    parser.add_argument("--json", type=Path, help="add a line per case to this file")
    return parser.parse_args(words)


def _warm() -> None:
    """Import once what every command needs; children are forked from here."""
    from diptych.cli import VERBS

    for name in (*WARM, *(verb.module for verb in VERBS.values())):
        import_module(name)
    import torch

    torch.set_num_threads(1)


def _plan(shares: dict[str, float], cases: int) -> list[tuple[str, int]]:
    """Number 0 and further cases of every target; by number, so that an early end hits all alike."""
    each = {name: max(1, round(cases * share / sum(shares.values()))) for name, share in shares.items()}
    return [
        (name, number) for number in range(max(each.values()) + 1) for name in shares if number <= each[name]
    ]


def _one(seed: int, work: Path, patience: float, keep: bool, planned: tuple[str, int]) -> trial.Trial:
    return trial.attempt(*planned, seed, work, patience=patience, keep=keep)


def _spread(one: partial[trial.Trial], plan: list[tuple[str, int]], jobs: int) -> Iterator[trial.Trial]:
    if jobs < 2 or len(plan) < 2:
        yield from map(one, plan)
        return
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=100) as pool:
        yield from pool.imap_unordered(one, plan)


def _table(found: list[trial.Trial], seconds: float, seed: int) -> None:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    causes: dict[str, list[trial.Trial]] = defaultdict(list)
    for tried in found:
        rows[tried.target][tried.kind] += 1
        for fault in tried.faults:
            causes[fault].append(tried)
    print(f"{'target':<22}{'cases':>7}{'done':>7}{'refused':>9}{'faults':>8}")
    for name, kinds in sorted(rows.items()):
        print(f"{name:<22}{kinds.total():>7}{kinds['done']:>7}{kinds['refused']:>9}{kinds['fault']:>8}")
    slow, large = max(found, key=lambda one: one.seconds), max(found, key=lambda one: one.peak)
    print(
        f"{len(found)} cases of seed {seed} in {seconds:.0f} s; slowest {slow.seconds:.1f} s "
        f"({slow.target} {slow.number}), largest {large.peak / 1e6:,.0f} MB ({large.target} {large.number})"
    )
    for fault, cases in sorted(causes.items(), key=lambda pair: -len(pair[1])):
        which = ", ".join(f"{one.target} {one.number}" for one in cases[:4])
        print(f"FAULT x{len(cases)}: {fault}\n      {which}\n      {'; '.join(cases[0].notes)[:300]}")
    if not causes:
        print("no faults")


if __name__ == "__main__":
    sys.exit(main())
