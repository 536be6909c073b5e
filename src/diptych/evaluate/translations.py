"""Evaluation of generated translations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from diptych.evaluate.form import Form, Options, one_stratum
from diptych.metrics.translation import (
    NAMES,
    corpus_score,
    sentence_statistics,
    signatures,
    texts_and_references,
)
from diptych.metrics.uncertainty import RowMeasure
from diptych.predictions import Predictions


class Translations(Form):
    """BLEU and chrF of the whole corpus, with sacrebleu's signatures."""

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether there are texts."""
        return predictions.texts is not None

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        self.strata = one_stratum(len(targets))
        pairs = [texts_and_references(each, targets, folded=options.fold) for each in sets]
        self.signatures = signatures()
        if options.fold:
            # A signature must tell what was done before sacrebleu saw the text.
            self.signatures = {name: f"{text}|folded:mmbert" for name, text in self.signatures.items()}
        self.measures = {
            name: _corpus_measure(name, [sentence_statistics(name, *pair) for pair in pairs])
            for name in NAMES
        }

    def facts(self) -> dict[str, Any]:
        return {"signatures": self.signatures}


def _corpus_measure(name: str, sets: Sequence[Int[ndarray, "N K"]]) -> RowMeasure:
    # BLEU of a corpus is made of summed counts, not of a mean over sentences, so rows hold counts.
    counts = np.concatenate(sets)

    def measure(rows: Int[ndarray, "S M N"]) -> Float[ndarray, "S M"]:
        # One resample after another: the counts of all at once would need gigabytes.
        values = [corpus_score(name, counts[chosen].sum(0)) for chosen in rows.reshape(-1, rows.shape[-1])]
        return np.array(values).reshape(rows.shape[:2])

    return measure
