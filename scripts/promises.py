"""How often thresholds break their promise: read off the curve, and by fixed-sequence testing.

python scripts/promises.py demo                       the runs and memes of `diptych demo`
python scripts/promises.py demo --draws 200 --sizes 250,500,1000

All labeled memes of a run's predictions are the population. Each draw takes a dev set from it, with
replacement, and chooses on it a threshold below which at most 5 % of the positive memes may score. The
promise is broken if the share in the population is larger.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy import ndarray

from diptych.calibrate import promise_below
from diptych.datasets import find_data
from diptych.predictions import Predictions

SPLITS = ("dev_seen", "test_seen", "test_unseen")


def population(run: Path, root: Path) -> tuple[ndarray, ndarray]:
    """Scores and truth of all memes with predictions and labels."""
    scores, truth = [], []
    for split in SPLITS:
        labels = find_data(root).open_labeled(root, split).truth()
        predictions = Predictions.load(run / "predictions" / f"{split}.npz").align([*labels])
        scores.append(predictions.column((predictions.classes or ())[-1]))
        truth.append(np.array([*labels.values()]) == 1)
    return np.concatenate(scores).astype(np.float64), np.concatenate(truth)


def broken(
    scores: ndarray, truth: ndarray, size: int, *, draws: int, limit: float, delta: float
) -> tuple[float, float, float, float]:
    """Share of draws in which each threshold breaks its promise, and the memes that each allows."""
    generator = np.random.default_rng(size)
    found = []
    for _ in range(draws):
        rows = generator.integers(len(scores), size=size)
        promise = promise_below(scores[rows][truth[rows]], limit=limit, delta=delta)
        honest = -np.inf if promise.threshold is None else promise.threshold
        both = (promise.naive, honest)
        found.append(
            (*(np.mean(scores[truth] < at) > limit for at in both), *(np.mean(scores < at) for at in both))
        )
    usual, ours, *allowed = np.mean(found, axis=0).tolist()
    return usual, ours, *allowed


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of `diptych demo`")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--sizes", default="250,500,1000")
    parser.add_argument("--limit", type=float, default=0.05)
    parser.add_argument("--delta", type=float, default=0.1)
    options = parser.parse_args(argv)
    print("| run | dev memes | read off the curve | Clopper-Pearson |\n|---|---|---|---|")
    for run in sorted(path.parent for path in options.demo.glob("*/predictions")):
        scores, truth = population(run, options.demo / "memes")
        for size in map(int, options.sizes.split(",")):
            usual, ours, *allowed = broken(
                scores, truth, size, draws=options.draws, limit=options.limit, delta=options.delta
            )
            first, second = (
                f"{share:.0%}, allows {part:.0%}" for share, part in zip((usual, ours), allowed, strict=True)
            )
            print(f"| {run.name} | {size:,} | {first} | {second} |")


if __name__ == "__main__":
    main(sys.argv[1:])
