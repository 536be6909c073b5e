"""`diptych convert`: what people see."""

import json

import pytest
import torch

from diptych.bundle import load_bundle
from diptych.cli import main
from diptych.convert import FAMILIES, restore
from diptych.models import uniter_tiny
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

WORDS = 40


@pytest.fixture
def file(tmp_path):
    """A weight file, beside its vocabulary."""
    table = next(family.table for family in FAMILIES if family.name == "uniter")
    model = uniter_tiny(vocab_size=WORDS, feature_dim=16)
    weights = {f"uniter.{name}": one for name, one in restore(model.state_dict(), table).items()}
    weights |= {"vqa_output.0.weight": torch.ones(96, 48), "vqa_output.0.bias": torch.ones(96)}
    weights |= {"vqa_output.2.weight": torch.ones(96), "vqa_output.2.bias": torch.ones(96)}
    weights |= {"vqa_output.3.weight": torch.ones(5, 96), "vqa_output.3.bias": torch.ones(5)}
    torch.save(weights, tmp_path / "any.name")
    write_vocabulary(tmp_path / "v.txt", [*SPECIAL_TOKENS, *map(str, range(WORDS - len(SPECIAL_TOKENS)))])
    return tmp_path / "any.name"


def run(*words):
    return main(["convert", *map(str, words)])


def test_convert_inspect_and_back(file, tmp_path, capsys):
    names = tmp_path / "answers.txt"
    names.write_text("yes\nno\nred\ntwo\ncat\n")
    settings = ["model.heads=4", f"task.answers=@{names}", "--vocabulary", tmp_path / "v.txt"]
    assert run(file, tmp_path / "out", *settings) == 0
    shown = capsys.readouterr().out
    assert "UNITER" in shown
    assert "vqa_output becomes diptych.tasks.Answer" in shown
    bundle = load_bundle(tmp_path / "out")
    assert bundle.task.answers == ("yes", "no", "red", "two", "cat")
    assert bundle.model.encoder.layers[0].attention.heads == 4
    assert run("--back", tmp_path / "out", tmp_path / "back.safetensors") == 0
    assert "tensors under their original names" in capsys.readouterr().out
    assert run("--inspect", tmp_path / "back.safetensors", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["groups"]["vqa_output.0"] == [2, 96 * 49]


@pytest.mark.parametrize("typed", ["[MASK]", "'[MASK]'", '"[MASK]"'])
def test_a_special_token_is_a_text(file, tmp_path, capsys, typed):
    settings = ["model.heads=4", f"processor.text_b={typed}", "--vocabulary", tmp_path / "v.txt"]
    assert run(file, tmp_path / "out", *settings) == 0
    assert load_bundle(tmp_path / "out").processor.text_b == "[MASK]"
    assert "processor.text_b '[MASK]' (set by the user)" in " ".join(capsys.readouterr().out.split())


def test_brackets_that_make_a_list_are_refused(file, tmp_path, capsys):
    settings = ["model.heads=4", "processor.text_b=[a, b]", "--vocabulary", tmp_path / "v.txt"]
    assert run(file, tmp_path / "out", *settings) == 2
    assert "text_b is ['a', 'b']; expected str" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_list(capsys):
    assert run("--list") == 0
    assert "uniter-base" in capsys.readouterr().out
    assert run("--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["uniter-base"]["family"] == "uniter"


def test_mistakes_are_one_line(file, tmp_path, refused, memes):
    out = tmp_path / "out"
    assert "SOURCE and OUT" in refused(["convert"])
    assert "SOURCE and OUT" in refused(["convert", file])
    assert "nowhere.pt" in refused(["convert", "nowhere.pt", out])
    assert "vocabulary=FILE" in refused(["convert", file, out, "model.heads=4"])
    assert "'heads=4'" in refused(["convert", file, out, "heads=4"])
    assert "'task.labels=[a'" in refused(["convert", file, out, "task.labels=[a"])
    assert "answers.txt does not exist" in refused(["convert", file, out, "task.answers=@answers.txt"])
    given = [file, out, "model.heads=4", "--vocabulary", tmp_path / "v.txt"]
    assert "expected lxmert" in refused(["convert", *given, "--family", "lxmert"])
    assert "heads is {'x': 1}; expected int" in refused(["convert", *given, "model.heads.x=1"])
    assert main(["convert", *map(str, given)]) == 0
    assert str(out) in refused(["convert", *given])
    features = ["--root", memes, "--features", memes / "features"]
    assert "wide; the model takes 16" in refused(["predict", out, *features])
