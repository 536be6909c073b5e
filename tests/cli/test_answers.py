import json

import pytest

from diptych.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("questions") / "vqa"
    assert main(["world", str(root), "--data", "vqa", "--size", "40"]) == 0
    return root


def test_a_list_is_made_and_shown_with_its_coverage(root, tmp_path, capsys):
    out = tmp_path / "a.json"
    assert main(["answers", str(root), str(out), "--data", "vqa", "--minimum", "2"]) == 0
    answers = json.loads(out.read_text())
    assert f"{len(answers)} answers" in capsys.readouterr().out
    assert main(["answers", str(root), str(out), "--minimum", "1", "--overwrite"]) == 0
    assert "24 of 24" in capsys.readouterr().out
    assert set(json.loads(out.read_text())) > set(answers)


def test_a_data_set_without_answers_or_a_minimum_is_refused(root, tmp_path, capsys):
    assert main(["answers", str(root), str(tmp_path / "a.txt"), "--minimum", "0"]) == 2
    assert "--minimum is 0" in capsys.readouterr().err
    assert main(["answers", str(root), str(tmp_path / "a.txt"), "--minimum", "99"]) == 2
    assert "99" in capsys.readouterr().err
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize(
    ("name", "experiment"), [("vqa", "vqa/lxmert_tiny"), ("lxmert", "pretrain/lxmert_tiny")]
)
def test_a_world_names_the_experiment_that_trains_on_it(name, experiment, tmp_path, capsys):
    assert main(["world", str(tmp_path / "w"), "--data", name, "--size", "40"]) == 0
    assert f" experiment={experiment} root={tmp_path / 'w'}\n" in capsys.readouterr().out
