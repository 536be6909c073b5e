import json

import pytest

from diptych import conf
from diptych.cli import main


def test_everything_is_listed_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "hateful_memes/uniter_tiny" in found["experiment"]
    assert all(summary for entries in found.values() for summary in entries.values())


def test_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "schedule"]) == 0
    shown = capsys.readouterr().out
    assert "cosine" in shown
    assert "uniter" not in shown
    assert main(["ls", "modle"]) == 2
    assert "Did you mean 'model'?" in capsys.readouterr().err


def test_cp_hands_out_an_experiment_once(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "hateful_memes/uniter_tiny", str(tmp_path)]) == 0
    mine = tmp_path / "experiment" / "my" / "uniter_tiny.yaml"
    assert mine.read_text() == (conf.CONF / "experiment/hateful_memes/uniter_tiny.yaml").read_text()
    mine.write_text("edited")
    assert main(["cp", "hateful_memes/uniter_tiny", str(tmp_path)]) == 2
    assert mine.read_text() == "edited"
    assert main(["cp", "uniter_tinny", str(tmp_path)]) == 2
    assert "'uniter_tinny'" in capsys.readouterr().err
