"""Logistic stacking: a logistic regression on the log-odds of the members."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import expit

from diptych.ensemble.arithmetic import Scores
from diptych.ensemble.loop import Round
from diptych.metrics import auroc, log_odds

INTERCEPT = "(intercept)"
PENALTY = 1.0  # half of it times the squared coefficients is added to the loss, as scikit-learn's C = 1


def stack(
    columns: Mapping[str, Float[ndarray, "K _"]],
    truth: Bool[ndarray, " N"],
    *,
    dev: str,
    names: Sequence[str],
    non_negative: bool = False,
) -> tuple[Scores, tuple[Round, ...]]:
    """Fit a logistic regression on the members' log-odds; returns probabilities by split.

    Log-odds are standardized on dev, because the penalty depends on their scale. A row that a member lacks
    (nan) gets its mean. If it lacks rows of dev, an indicator of these is a further column, so that being
    missing may mean something.

    Args:
        columns: scores by split, one row per member.
        names: names of the members.
        non_negative: no member may count against itself; one that would gets 0.
    """
    odds = {split: log_odds(values) for split, values in columns.items()}
    here = np.isfinite(odds[dev])
    middle, width = _moments(odds[dev], here)
    gaps = np.flatnonzero(~here.all(axis=1)).tolist()
    rows = {
        split: np.concatenate(
            (np.where(np.isnan(values), 0, (values - middle) / width), np.isnan(values[gaps]).astype(float))
        ).T
        for split, values in odds.items()
    }
    factors, intercept = _logistic(rows[dev], truth, free=len(gaps) if non_negative else None)
    scores = {split: np.asarray(expit(values @ factors + intercept)) for split, values in rows.items()}
    # In units of the log-odds, in which people think.
    plain = factors[: len(names)] / width[:, 0]
    weights = dict(zip(names, plain.tolist(), strict=True))
    weights |= {f"{names[row]} is missing": float(factors[len(names) + k]) for k, row in enumerate(gaps)}
    weights[INTERCEPT] = float(intercept - plain @ middle[:, 0])  # undoes the centering
    areas = {name: area_of(truth, row) for name, row in zip(names, columns[dev], strict=True)}
    return scores, (Round(aurocs=areas, dropped=(), weights=weights, auroc=auroc(truth, scores[dev])),)


def area_of(truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"]) -> float:
    """AUROC of the rows that a member has."""
    here = np.isfinite(scores)
    return auroc(truth[here], scores[here])


def _moments(
    odds: Float[ndarray, "K N"], here: Bool[ndarray, "K N"]
) -> tuple[Float[ndarray, "K 1"], Float[ndarray, "K 1"]]:
    """Mean and standard deviation of each row, without what is missing."""
    counts = np.maximum(here.sum(axis=1, keepdims=True), 1)
    middle = np.where(here, odds, 0).sum(axis=1, keepdims=True) / counts
    width = np.sqrt((np.where(here, odds - middle, 0) ** 2).sum(axis=1, keepdims=True) / counts)
    # A constant member has no width; its column is then 0.
    return middle, np.where(width > 1e-12, width, 1)


def _logistic(
    rows: Float[ndarray, "N K"], truth: Bool[ndarray, " N"], *, free: int | None
) -> tuple[Float[ndarray, " K"], float]:
    """Coefficients and intercept with the least penalized loss.

    Args:
        free: None if all coefficients may be negative, else how many of the last may be.
    """
    signs = np.where(truth, 1.0, -1.0)

    def loss(weights: ndarray) -> tuple[float, ndarray]:
        margins = signs * (rows @ weights[:-1] + weights[-1])
        slopes = -signs * expit(-margins)  # derivative of log(1 + exp(-margin)) by the odds
        penalty = PENALTY * weights[:-1]
        value = np.logaddexp(0, -margins).sum() + penalty @ weights[:-1] / 2
        return float(value), np.append(rows.T @ slopes + penalty, slopes.sum())

    count = rows.shape[1]
    bound = 0 if free is None else count - free
    bounds = [(0, None)] * bound + [(None, None)] * (count - bound + 1)
    found = minimize(
        loss,
        np.zeros(count + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-13, "gtol": 1e-8},
    )
    return found.x[:-1], float(found.x[-1])
