import pytest

from diptych.metrics import MEASURES, measure_named


@pytest.mark.parametrize(
    ("name", "title", "higher"),
    [
        ("auroc", "AUROC", True),
        ("brier", "Brier score", False),
        ("loss", "loss", False),
        ("words_loss", "words loss", False),
        ("auroc_cat", "AUROC of cat", True),
        ("text_recall@5", "text recall@5", True),
    ],
)
def test_every_name_has_a_title_and_a_direction(name, title, higher):
    measure = measure_named(name)
    assert (measure.title, measure.higher) == (title, higher)


def test_what_counts_errors_is_better_the_lower():
    assert {name for name, one in MEASURES.items() if not one.higher} == {
        "brier",
        "calibration_error",
        "debiased_calibration_error",
        "distribution",
        "largest_gap",
        "log_loss",
        "loss",
        "murphy_reliability",
        "murphy_uncertainty",
    }
