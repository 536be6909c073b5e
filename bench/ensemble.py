"""Fitting the weights of an ensemble, against a search that asks scikit-learn for every AUROC."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
from bench._timing import in_turns, promise
from numpy import ndarray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from diptych.ensemble import fit_blend, greedy_search, read_members, simplex_search, write_predictions
from diptych.ensemble.search import STEPS

FAMILIES = ("EL", "ES", "O", "U", "V")
SPLITS = {"dev_seen": 500, "test_seen": 1000, "test_unseen": 2000}  # as in the challenge
LIMIT = 2.0  # seconds of one core, as all times here

Row = tuple[str, str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the naive way, how many times faster ours is, and the promise."""
    truth, columns = judged(15, 500)
    for name, search in (("simplex", simplex_search), ("greedy", greedy_search)):
        fast, slow = in_turns(
            partial(search, columns, truth),
            partial(naive, columns, truth),
            least=1,
            warm=False,
            clock=process_time,
        )
        yield row(f"{name} search, 15 members of 500 rows", fast, slow, f"{STEPS} x roc_auc_score")
    with tempfile.TemporaryDirectory() as folder:
        files = vilio_files(Path(folder))
        fast, slow = in_turns(
            partial(two_rounds, files),
            partial(naive, columns[:5], truth, rounds=2),
            least=1,
            warm=False,
            clock=process_time,
        )
    yield row("15 csv files to 3, two rounds", fast, slow, f"{2 * STEPS} x roc_auc_score")


def row(what: str, fast: float, slow: float, naive: str) -> Row:
    kept = promise(f"below {LIMIT:g} s", fast < LIMIT)
    return what, f"{fast:.2f} s", f"{naive} {slow:.2f} s", f"{slow / fast:.1f}x", kept


def judged(count: int, size: int) -> tuple[ndarray, ndarray]:
    """Truth, and probabilities of members that agree in part."""
    generator = np.random.default_rng(0)
    truth = generator.random(size) < 0.5
    shared = truth + generator.normal(size=size)
    return truth, expit(shared + generator.normal(size=(count, size)))


def naive(columns: ndarray, truth: ndarray, *, rounds: int = 1) -> float:
    """The evaluations of a search alone, without what chooses the next weights."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(len(columns)), size=STEPS * rounds)
    return max(float(roc_auc_score(truth, one @ columns)) for one in weights)


def vilio_files(folder: Path) -> Path:
    """Log-probabilities of five families on three splits."""
    for split, size in SPLITS.items():
        for name, column in zip(FAMILIES, np.log(judged(5, size)[1]), strict=True):
            lines = [f"{split}{number},{value!r},0" for number, value in enumerate(column.tolist())]
            (folder / f"{name}_{split}.csv").write_text("\n".join(["id,proba,label", *lines]) + "\n")
    return folder


def two_rounds(folder: Path) -> None:
    members = read_members([folder], kind="log_probability")
    truth = {f"dev_seen{number}": int(one) for number, one in enumerate(judged(5, 500)[0])}
    blends, _ = fit_blend(members, truth, dev="dev_seen", folds=1)
    for split, predictions in blends.items():
        write_predictions(predictions, folder / f"FIN_{split}.csv")
