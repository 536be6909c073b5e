"""Arithmetic of fitted blends; `diptych.ensemble.vilio` overrides what Vilio does differently."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.linear_model import LogisticRegression

from diptych.ensemble.blend import require_probabilities
from diptych.ensemble.members import Members
from diptych.ensemble.search import area_under
from diptych.metrics import best_threshold

Scores = dict[str, ndarray]


class Arithmetic:
    """Takes and returns probabilities. Scales, ranks and threshold come from dev.

    The score of an example therefore does not depend on the other examples of its split.
    """

    compat: ClassVar[bool] = False

    def require(self, joined: Float[ndarray, "M N C"], names: Sequence[str]) -> None:
        """Check that the scores can be blended.

        Raises:
            FormatError: they are not probabilities.
        """
        require_probabilities(joined, names, sum_to_one=False)

    def area(self, truth: Bool[ndarray, " N"]) -> Callable[[ndarray], float]:
        """Return the function of scores that the search maximizes: AUROC."""
        return area_under(truth)

    def reference(self, columns: Float[ndarray, "K N"], dev: Float[ndarray, "K M"]) -> Float[ndarray, "K _"]:
        """Return the scores that define scale and ranks for `columns` of a split."""
        return dev

    def finish(self, scores: Scores, truth: Bool[ndarray, " N"], dev: str) -> Scores:
        """Turn the scores of a loop into probabilities by a logistic fit on dev, which keeps their order."""
        curve = self.curve(scores[dev], truth)
        return {split: curve(values) for split, values in scores.items()}

    def curve(
        self, scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"]
    ) -> Callable[[ndarray], Float[ndarray, " _"]]:
        """Fit the function that `finish` applies, on the scores of dev."""
        # standardized, because the regularization of LogisticRegression depends on the scale of its input
        middle, width = scores.mean(), scores.std() or 1.0
        logistic = LogisticRegression().fit(((scores - middle) / width)[:, None], truth)
        if logistic.coef_[0, 0] <= 0:  # no better than chance: the curve would reverse the order
            return lambda values: values
        return lambda values: logistic.predict_proba(((values - middle) / width)[:, None])[:, 1]

    def threshold(self, truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"]) -> float:
        """Return the threshold with the best accuracy on dev."""
        return best_threshold(truth, scores, criterion="accuracy")

    def dev_answers(
        self, members: Members, dev: str, kept: Sequence[str], answers: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """Return the answers for dev.

        Args:
            kept: columns that the last round did not drop.
            answers: answers by the threshold.
        """
        return answers


OURS = Arithmetic()
