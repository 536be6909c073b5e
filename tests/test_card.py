import math
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from diptych.bundle import read_content
from diptych.card import card

PROOFS = {"uniter-pretrain": {"compared": 12, "worst": 3e-07}}


def test_the_hub_understands_the_card_of_a_bundle(bundle: Path) -> None:
    read = ModelCard((bundle / "README.md").read_text(encoding="utf-8"))
    assert read.data.library_name == "diptych"
    assert {"diptych", "text_bert_tiny"} <= {*read.data.tags}
    (result,) = read.data.eval_results
    assert (result.metric_type, result.metric_value, result.task_name) == ("auroc", 0.75, "Classify")
    for title in ("Intended use", "Limits", "Metrics", "Calibration", "Equal to the original", "Training"):
        assert f"\n## {title}\n" in read.text
    assert "0.3000" in read.text  # the threshold of the task


def test_license_proofs_and_policy_are_told(bundle: Path) -> None:
    text = card(read_content(bundle), proofs=PROOFS, license="apache-2.0", policy="It promises 5 %.")
    assert ModelCard(text).data.license == "apache-2.0"
    assert "| `uniter-pretrain` | 12 | 3.0e-07 |" in text
    assert "## Calibration\n\nIt promises 5 %." in text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_results_that_are_no_number_stay_out_of_the_head(bundle: Path, value: float) -> None:
    content = {**read_content(bundle), "metrics": {"auroc": value}}
    assert ModelCard(card(content)).data.eval_results is None


def test_the_task_decides_what_the_hub_calls_it(bundle: Path) -> None:
    content = {**read_content(bundle), "task": {"_target_": "diptych.tasks.Answer"}}
    assert ModelCard(card(content)).data.pipeline_tag == "visual-question-answering"
    assert ModelCard(card(read_content(bundle))).data.pipeline_tag is None
