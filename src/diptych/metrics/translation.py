"""BLEU and chrF of translations, computed by sacrebleu (Post, 2018, https://aclanthology.org/W18-6319).

The numbers are those of sacrebleu's command line, from 0 to 100. Sentences are compared as they are: cased,
with punctuation split off by sacrebleu's own tokenizer `13a`.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from diptych.errors import FormatError, missing_library
from diptych.metrics.classification import labeled
from diptych.predictions import Predictions

# What Unicode does not decompose. The original uses the library unidecode, which is GPL and knows more.
FOLDED = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l",
        "Ł": "L", "đ": "d", "Đ": "D", "–": "-", "—": "--", "‘": "'", "’": "'", "‚": ",", "“": '"',
        "”": '"', "„": ",,", "«": "<<", "»": ">>", "…": "...", "€": "EUR", "°": "deg",
    }
)  # fmt: skip
NAMES = ("bleu", "chrf")


@cache
def _measure(name: str) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU  # takes 0.2 s
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise missing_library("BLEU and chrF need sacrebleu", "translate", error) from error
    return {"bleu": BLEU, "chrf": CHRF}[name]()


def fold(text: str) -> str:
    """Write a text in ASCII: without accents, ligatures in two letters; other characters are dropped.

    MM-BERT folds the references like this and writes `ß` as `ss` in its output, so that BLEU does not see
    missing accents.
    """
    plain = unicodedata.normalize("NFKD", text.translate(FOLDED))
    return plain.encode("ascii", "ignore").decode()


def sentence_statistics(
    name: str, hypotheses: Sequence[str], references: Sequence[str]
) -> Int[ndarray, "N K"]:
    """Counts of each sentence, whose sums determine the measure of a corpus."""
    # sacrebleu's own paired bootstrap uses these methods. They compute everything once per sentence.
    counts = _measure(name)._extract_corpus_statistics([*hypotheses], [[*references]])
    return np.array(counts, dtype=np.int64)


def corpus_score(name: str, sums: Int[ndarray, " K"]) -> float:
    """`bleu` or `chrf` of a corpus, from the sums of its sentences' counts."""
    return float(_measure(name)._compute_score_from_stats(sums.tolist()).score)


def signatures() -> dict[str, str]:
    """How each measure was computed, as sacrebleu writes it; publish it with the number."""
    named = {name: _measure(name) for name in NAMES}
    for measure in named.values():
        measure.corpus_score(["a"], [["a"]])  # the number of references is part of it
    return {name: str(measure.get_signature()) for name, measure in named.items()}


def measure_translations(
    predictions: Predictions, targets: Mapping[str, Any], *, folded: bool = False
) -> dict[str, float]:
    """BLEU and chrF of the texts; empty if no target is known.

    Args:
        targets: the right translation of each id; None if unknown.
        folded: compat: see `fold`.

    Raises:
        FormatError: an id has no entry in `targets`, or the predictions have no texts.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    pair = texts_and_references(predictions, [targets[key] for key in predictions.ids], folded=folded)
    return {name: corpus_score(name, sentence_statistics(name, *pair).sum(0)) for name in NAMES}


def texts_and_references(
    predictions: Predictions, targets: Sequence[Any], *, folded: bool = False
) -> tuple[list[str], list[str]]:
    """What is compared with what.

    Raises:
        FormatError: the predictions have no texts, or a target is not a sentence.
    """
    if predictions.texts is None:
        raise FormatError("the predictions have no texts, so they cannot be compared with translations.")
    for key, target in zip(predictions.ids, targets, strict=True):
        if not isinstance(target, str):
            raise FormatError(f"example {key} has the target {target!r:.80}; expected a sentence.")
    if not folded:
        return [*predictions.texts], [*targets]
    return [text.replace("ß", "ss") for text in predictions.texts], [fold(target) for target in targets]
