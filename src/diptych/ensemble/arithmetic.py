"""What a fitted blend does with numbers, where Vilio does something else: see `diptych.ensemble.vilio`."""

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
    """Probabilities in and out. Scales, ranks and threshold are those of dev."""

    compat: ClassVar[bool] = False

    def require(self, joined: Float[ndarray, "M N C"], names: Sequence[str]) -> None:
        """Refuse scores that cannot be blended."""
        require_probabilities(joined, names, sum_to_one=False)

    def area(self, truth: Bool[ndarray, " N"]) -> Callable[[ndarray], float]:
        """AUROC as the search measures it."""
        return area_under(truth)

    def reference(self, columns: Float[ndarray, "K N"], dev: Float[ndarray, "K M"]) -> Float[ndarray, "K _"]:
        """The rows that give `columns` of a split their scale and ranks."""
        return dev

    def finish(self, scores: Scores, truth: Bool[ndarray, " N"], dev: str) -> Scores:
        """What a loop ends with: scores through the logistic curve that fits dev best, in the same order."""
        middle, width = scores[dev].mean(), scores[dev].std() or 1.0
        rows = {split: ((values - middle) / width)[:, None] for split, values in scores.items()}
        curve = LogisticRegression().fit(rows[dev], truth)
        if curve.coef_[0, 0] <= 0:  # no better than chance: the curve would turn the order around
            return scores
        return {split: curve.predict_proba(values)[:, 1] for split, values in rows.items()}

    def threshold(self, truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"]) -> float:
        """Where accuracy on dev is best."""
        return best_threshold(truth, scores, criterion="accuracy")

    def dev_answers(
        self, members: Members, dev: str, kept: Sequence[str], answers: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """The answers on dev.

        Args:
            kept: members that the last round did not drop.
            answers: by the threshold.
        """
        return answers


OURS = Arithmetic()
