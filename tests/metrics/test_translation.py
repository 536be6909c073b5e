import numpy as np
import pytest
import sacrebleu

from diptych.errors import FormatError
from diptych.metrics import fold, measure_translations, signatures
from diptych.metrics.translation import corpus_score, sentence_statistics
from diptych.predictions import Predictions

RIGHT = ["Ein Mann schläft.", "Zwei Hunde laufen, wie immer, am Strand.", "Ein Kind!", "Große Äpfel – rot"]
FOUND = ["Ein Mann schlaft.", "Zwei Hunde laufen am Strand.", "", "Große Äpfel - rot"]
IDS = tuple("abcd")


def test_numbers_are_those_of_sacrebleu():
    found = Predictions(ids=IDS, texts=tuple(FOUND))
    measured = measure_translations(found, dict(zip(IDS, RIGHT, strict=True)))
    assert measured == {
        "bleu": pytest.approx(sacrebleu.corpus_bleu(FOUND, [RIGHT]).score),
        "chrf": pytest.approx(sacrebleu.corpus_chrf(FOUND, [RIGHT]).score),
    }


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_sums_of_some_sentences_give_the_measure_of_these(name):
    rows = [3, 0, 0]
    counts = sentence_statistics(name, FOUND, RIGHT)[rows].sum(0)
    whole = getattr(sacrebleu, f"corpus_{name}")([FOUND[row] for row in rows], [[RIGHT[row] for row in rows]])
    assert corpus_score(name, counts) == pytest.approx(whole.score)
    assert corpus_score(name, np.zeros_like(counts)) == 0


def test_signatures_tell_version_case_and_tokenizer():
    assert signatures()["bleu"].split("|")[:4] == ["nrefs:1", "case:mixed", "eff:no", "tok:13a"]
    assert f"version:{sacrebleu.__version__}" in signatures()["chrf"]


def test_folding_is_that_of_the_evaluation_of_mm_bert():
    assert fold("Große Äpfel – „rot“, s'il vous plaît: œuf, příliš žluťoučký") == (
        "Grosse Apfel - ,,rot\", s'il vous plait: oeuf, prilis zlutoucky"
    )
    found = Predictions(ids=("a",), texts=("Große Apfel",))
    target = {"a": "Große Äpfel"}
    folded = measure_translations(found, target, folded=True)
    assert folded["chrf"] > 99.9 > measure_translations(found, target)["chrf"]


def test_unknown_targets_are_left_out_and_others_are_sentences():
    found = Predictions(ids=IDS, texts=tuple(FOUND))
    assert measure_translations(found, dict.fromkeys(IDS)) == {}
    with pytest.raises(FormatError, match=r"example b .*7"):
        measure_translations(found, {**dict.fromkeys(IDS), "b": 7})
    with pytest.raises(FormatError, match="texts"):
        measure_translations(Predictions(ids=("a",)), {"a": "x"})
