"""The demo as a stranger meets it, on fewer memes."""

from pathlib import Path

import pytest

from diptych.cli import main
from diptych.cli.demo import MEMBERS, SPLITS

pytestmark = pytest.mark.journey


@pytest.mark.timeout(600)
def test_demo_leaves_everything_it_promises_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--size", "120"]) == 0
    shown = capsys.readouterr().out
    assert "AUROC with 95 % interval" in shown
    assert f"root={out / 'memes'}" in shown, "the commands that were run can be typed"
    for name, *_ in MEMBERS:
        assert f" {name} " in shown
        assert (out / name / "bundle/weights.safetensors").exists()
        assert all((out / name / f"predictions/{split}.csv").exists() for split in SPLITS)
    assert all((out / f"average/{split}.csv").read_text().startswith("id,proba,label") for split in SPLITS)
    assert (out / "memes.png").read_bytes().startswith(b"\x89PNG")
    assert "too small" in shown, "a policy of 8 memes would be a guess, and the demo says so"

    assert main(["demo", "--out", str(out), "--size", "120"]) == 0
    again = capsys.readouterr().out
    assert "$ diptych" not in again, "what is done is not done again"
    assert "AUROC with 95 % interval" in again
