"""From a fabricated corpus to hypotheses and their measures, on the command line."""

import json
import re
from importlib import import_module

import pytest
import sacrebleu

from diptych.cli import main
from diptych.datasets import Multi30k, fabricate
from diptych.errors import FormatError
from diptych.predict import load, translate_split
from diptych.predictions import Predictions

module = import_module("diptych.predict.translate")

SMALL = ["model.dim=16", "model.heads=2", "model.hidden=32", "model.layers=1", "task.max_length=6"]
FEW = ["--samples", "20"]
DECODER = ["task.layers=1", "task.heads=2", "task.hidden=32"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus") / "multi30k"
    fabricate(root, "multi30k", size=40, seed=1)
    return root


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """A run on texts alone, of a decoder."""
    out = tmp_path_factory.mktemp("runs") / "decoder"
    words = ["experiment=multi30k/translation_encoder_decoder_tiny", f"root={corpus}", f"out={out}"]
    words += ["image=false", "trainer.max_steps=2", "progress=false", "loggers=[]", *SMALL, *DECODER]
    assert main(["train", *words]) == 0
    return out


def test_a_split_is_translated_and_evaluate_says_the_same(corpus, run, tmp_path, capsys):
    out = tmp_path / "found.txt"
    assert main(["translate", str(run), "--split", "val", "--beam", "2", "--out", str(out), *FEW]) == 0
    told = capsys.readouterr().out
    assert "tok:13a" in told
    assert (
        main(["evaluate", str(out), "--data", "multi30k", "--root", str(corpus), "--split", "val", *FEW]) == 0
    )
    again = capsys.readouterr().out
    numbers = re.findall(r"(?:BLEU|chrF) +\d+\.\d{4} ", told)
    assert len(numbers) == 2
    assert all(one in again for one in numbers)
    right = [example.target for example in Multi30k(corpus, "val", task="translation", image=False)]
    found = out.read_text(encoding="utf-8").splitlines()
    assert f"{sacrebleu.corpus_chrf(found, [right]).score:.4f}" in told
    # a file of another program has no .npz beside it
    plain = tmp_path / "plain.txt"
    plain.write_bytes(out.read_bytes())
    words = ["evaluate", str(plain), "--data", "multi30k", "--root", str(corpus), "--split", "val", *FEW]
    for more in ([], ["--set", "lang=de"]):
        assert main([*words, *more]) == 0
        again = capsys.readouterr().out
        assert all(one in again for one in numbers)
    capsys.readouterr()
    assert main([*words, "--fold", "--json"]) == 0
    [result] = json.loads(capsys.readouterr().out)["results"].values()
    assert result["signatures"]["bleu"].endswith("folded:mmbert")


def test_the_same_command_keeps_the_file_and_other_settings_do_not_replace_it(run, tmp_path, refused):
    out = tmp_path / "found.txt"
    words = ["translate", str(run), "--split", "val", "--beam", "1", "--out", str(out), *FEW]
    assert main(words) == 0
    before = out.stat().st_mtime_ns
    assert main(words) == 0
    assert out.stat().st_mtime_ns == before
    words[words.index("1")] = "2"
    assert "found.npz" in refused(words)
    assert main([*words, "--overwrite"]) == 0
    assert not list(tmp_path.glob("*.unfinished"))
    out.write_text("mine\n", encoding="utf-8")
    assert "found.txt" in refused([*words, "--overwrite"])
    assert out.read_text(encoding="utf-8") == "mine\n"


def test_an_interrupted_call_goes_on_and_ends_with_the_same_file(run, tmp_path, monkeypatch):
    whole, part = tmp_path / "whole.txt", tmp_path / "part.txt"
    options = {"batch_size": 2}
    translate_split(run, "val", file=whole, **options)
    append, count = module._append, []

    def stop(file, line):
        append(file, line)
        count.append(line)
        if len(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_append", stop)
    with pytest.raises(KeyboardInterrupt):
        translate_split(run, "val", file=part, **options)
    assert not part.exists()
    journal = module.journal_of(part)
    journal.write_text(journal.read_text() + '{"ids": ["torn', encoding="utf-8")
    monkeypatch.setattr(module, "_append", append)
    done = translate_split(run, "val", file=part, **options)
    assert done.resumed == 4
    assert part.read_bytes() == whole.read_bytes()
    assert (
        Predictions.load(part.with_suffix(".npz")).texts == Predictions.load(whole.with_suffix(".npz")).texts
    )
    assert not journal.exists()


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"ids": ["a"], "texts": [1]}', '{"ids": ["a"], "texts": []}', '{"ids": ["a"]}', "\xff"],
)
def test_a_damaged_line_of_a_journal_is_named(run, tmp_path, line):
    out = tmp_path / "found.txt"
    predictor, made_of = load(run), []

    def stop(path, digest, *, overwrite):
        made_of.append(digest)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_journal", stop)
        with pytest.raises(KeyboardInterrupt):
            translate_split(run, "val", file=out, predictor=predictor)
    journal = module.journal_of(out)
    journal.write_bytes(f"{made_of[0]}\n{line}\n".encode("latin-1"))
    with pytest.raises(FormatError, match=re.escape(f"{journal}:2")):
        translate_split(run, "val", file=out, predictor=predictor)


def test_a_journal_of_other_settings_is_refused(run, tmp_path, refused):
    out = tmp_path / "found.txt"
    journal = module.journal_of(out)
    journal.write_text("another\n")
    words = ["translate", str(run), "--split", "val", "--out", str(out)]
    assert journal.name in refused(words)
    assert not out.exists()
    assert journal.read_text() == "another\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--beam", "99999"], "99999"), (["--beam", "0"], "0"), (["--split", "vall"], "'val'")],
)
def test_what_cannot_work_is_one_line(run, tmp_path, refused, words, told):
    out = tmp_path / "found.txt"
    assert told in refused(["translate", str(run), "--split", "val", "--out", str(out), *words])
    assert not out.exists()


def test_a_run_of_another_task_does_not_translate(bundle, corpus, refused):
    words = ["--split", "val", "--data", "multi30k", "--root", corpus]
    assert "Classify" in refused(["translate", bundle, *words])


def test_a_file_of_another_split_is_one_line(corpus, tmp_path, refused):
    (tmp_path / "found.txt").write_text("ein Satz\n" * 3)
    where = ["--data", "multi30k", "--root", corpus, "--split", "val"]
    line = refused(["evaluate", tmp_path / "found.txt", *where])
    assert "found.txt" in line
    assert " 3 " in line
    assert "--set" in refused(["evaluate", tmp_path / "found.txt", *where, "--set", "lang"])
