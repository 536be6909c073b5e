"""Measures of calibration: how well probabilities agree with frequencies.

All are functions of column sums over rows, so that thousands of bootstrap resamples cost one matrix product;
see `diptych.metrics.uncertainty.resampled_sums`.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.metrics.classification import Truth, bin_numbers, checked_probabilities

CLIP = 1e-6  # a probability of 0 or 1 would have infinite log-odds
BINS, PER_BIN = 15, 30  # bins of the calibration error, or fewer, so that each has about so many rows


def log_odds(probabilities: Float[ndarray, "*N"]) -> Float[ndarray, "*N"]:
    """Log-odds of probabilities, which are clipped to [1e-6, 1 - 1e-6]."""
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def log_losses(truth: Float[ndarray, " N"], probabilities: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
    """Negative logarithm of the probability that each row's truth got; probabilities are clipped at 1e-6."""
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    return np.asarray(-(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped)))


def fit_logistic(
    columns: Float[ndarray, "N K"], targets: Float[ndarray, " N"], *, steps: int = 100
) -> Float[ndarray, " K"] | None:
    """Coefficients of the logistic regression of `targets` in [0, 1] on `columns`, without a penalty.

    Newton's method with halved steps. None if it has no finite solution: a column separates the classes.
    """
    from scipy.special import expit

    weights = np.zeros(columns.shape[1])
    loss = _negative_likelihood(columns @ weights, targets)
    for _ in range(steps):
        mean = expit(columns @ weights)
        gradient = columns.T @ (targets - mean)
        hessian = columns.T @ (columns * (mean * (1 - mean))[:, None])
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            return None
        # A full step may overshoot where the curve is flat; some fraction of it always improves.
        while (new := _negative_likelihood(columns @ (weights + step), targets)) > loss + 1e-12 * abs(loss):
            step /= 2
            if np.abs(step).max() < 1e-12:
                return weights
        weights, loss = weights + step, new
        # Separated classes: the likelihood rises forever, and so do the coefficients.
        if np.abs(weights).max() > 1e4:
            return None
        if np.abs(step).max() < 1e-9 * max(1.0, float(np.abs(weights).max())):
            return weights
    return None


def _negative_likelihood(raw: Float[ndarray, " N"], targets: Float[ndarray, " N"]) -> float:
    # log(1 + e^x) - y x, without overflow.
    return float(np.sum(np.logaddexp(0, raw) - targets * raw))


class CalibrationMeasures:
    """The measures of one set of probabilities.

    `brier` and its split (Murphy, 1973): reliability - resolution + uncertainty, up to the spread of the
    probabilities within a bin. `calibration_error` has bins of equal mass; the debiased one subtracts the
    variance that frequencies of finite bins have from its square (Bröcker, 2012; Kumar et al., 2019).
    `slope` and `intercept` are those of a logistic regression of the truth on the log-odds, 1 and 0 for
    calibrated probabilities (Cox, 1958); nan if the scores separate the classes.

    Args:
        truth: True for the positive class.
        probabilities: in [0, 1].
        bins: number of bins; None means 15, or one per 30 rows if these are fewer.

    Raises:
        ValueError: as `diptych.metrics.classification.checked_probabilities`.
    """

    def __init__(self, truth: Truth, probabilities: Float[ndarray, " N"], *, bins: int | None = None) -> None:
        self.truth = checked_probabilities(truth, probabilities).astype(np.float64)
        probabilities = probabilities.astype(np.float64)
        self.odds = log_odds(probabilities)
        self._line = np.stack((self.odds, np.ones_like(self.odds)), axis=1)
        # Found by their order: the numbers of such a fit grow until rounding stops them, somewhere.
        high, low = self.odds[self.truth == 1], self.odds[self.truth == 0]
        separated = not (len(high) and len(low)) or high.min() >= low.max() or low.min() >= high.max()
        self.fit = None if separated else fit_logistic(self._line, self.truth)
        bins = bins or max(1, min(BINS, len(self.truth) // PER_BIN))
        member = np.eye(bins)[bin_numbers(probabilities, bins)]
        self.bins = bins
        self.columns = np.concatenate(
            (
                (probabilities - self.truth)[:, None] ** 2,
                log_losses(self.truth, probabilities)[:, None],
                self._newton(),
                member,
                member * probabilities[:, None],
                member * self.truth[:, None],
            ),
            axis=1,
        )

    def _newton(self) -> Float[ndarray, "N 5"]:
        """Columns whose sums are gradient and Hessian of the logistic regression at its solution."""
        from scipy.special import expit

        if self.fit is None:
            return np.full((len(self.odds), 5), np.nan)
        mean = expit(self._line @ self.fit)
        rest, weight = self.truth - mean, mean * (1 - mean)
        return np.stack((rest * self.odds, rest, weight * self.odds**2, weight * self.odds, weight), axis=1)

    def values(self) -> dict[str, float]:
        """The measures of all rows."""
        found = self.of_sums(self.columns.sum(axis=0)[None])
        return {name: float(value[0]) for name, value in found.items()}

    def of_sums(
        self, sums: Float[ndarray, "S K"], *, resampled: bool = False
    ) -> dict[str, Float[ndarray, " S"]]:
        """The measures of resamples, from the sums of `columns` over each.

        Args:
            resampled: whether rows were drawn from the sample. Frequencies then vary twice, as the sample
                does and around the sample, and the debiased error subtracts both.
        """
        counts, means, shares = np.split(sums[:, 7:], 3, axis=1)
        total = counts.sum(axis=1)
        # Bins that a resample missed weigh nothing.
        full = np.maximum(counts, 1)
        means, shares, weights = means / full, shares / full, counts / total[:, None]
        base = (weights * shares).sum(axis=1)
        gaps = np.where(counts > 0, means - shares, 0.0)
        noise = shares * (1 - shares) / np.maximum(counts - 1, 1) * (2 if resampled else 1)
        slope, intercept = self._refitted(sums[:, 2:7])
        return {
            "brier": sums[:, 0] / total,
            "murphy_reliability": (weights * gaps**2).sum(axis=1),
            "murphy_resolution": (weights * (shares - base[:, None]) ** 2).sum(axis=1),
            "murphy_uncertainty": base * (1 - base),
            "log_loss": sums[:, 1] / total,
            "calibration_error": (weights * np.abs(gaps)).sum(axis=1),
            "debiased_calibration_error": np.sqrt(np.maximum((weights * (gaps**2 - noise)).sum(axis=1), 0.0)),
            "largest_gap": np.abs(gaps).max(axis=1),
            "slope": slope,
            "intercept": intercept,
        }

    def _refitted(self, sums: Float[ndarray, "S 5"]) -> tuple[Float[ndarray, " S"], Float[ndarray, " S"]]:
        if self.fit is None:
            return sums[:, 0], sums[:, 0]  # nan
        # One step of Newton from the solution of all rows: a resample's own solution is so near that the
        # rest of the way is of a smaller order than its distance.
        g0, g1, h00, h01, h11 = sums.T
        determinant = h00 * h11 - h01**2
        determinant[determinant <= 0] = np.nan  # a resample whose rows have one score
        slope = self.fit[0] + (h11 * g0 - h01 * g1) / determinant
        return slope, self.fit[1] + (h00 * g1 - h01 * g0) / determinant

    def cox_test(self) -> float:
        """P-value of the hypothesis that slope and intercept are 1 and 0: a likelihood-ratio test.

        nan if the scores separate the classes.
        """
        from scipy.stats import chi2

        if self.fit is None:
            return float("nan")
        before, after = (_negative_likelihood(raw, self.truth) for raw in (self.odds, self._line @ self.fit))
        return float(chi2.sf(2 * max(before - after, 0.0), 2))
