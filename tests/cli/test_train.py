from pathlib import Path

import pytest
import yaml

from diptych.cli import main


def failing(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["train", *words]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert shown.err.count("diptych: error:") == 1
    return shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=hateful_memes/uniter_tinny"], "Did you mean 'hateful_memes/uniter_tiny'?"),
        (["model=uniter_tinny"], "no model 'uniter_tinny'. Did you mean 'uniter_tiny'?"),
        (["experiment=hateful_memes/uniter_tiny"], "root is not given; say root=FOLDER"),
        (["experiment=hateful_memes/uniter_tiny", "sead=3"], "no key 'sead'. Did you mean 'seed'?"),
        (["sead=3"], "You must specify 'model'"),
        (["model=uniter_tiny", "root==3"], "root==3"),
    ],
)
def test_a_mistyped_setting_suggests_the_nearest(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failing(words, capsys)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lrr=3", "no parameter 'lrr'. Did you mean 'lr'?"),
        ("trainer.max_epoch=3", "no parameter 'max_epoch'. Did you mean 'max_epochs'?"),
        ("data.batchsize=3", "data has no key 'batchsize'. Did you mean 'batch_size'?"),
        ("data.train.split=trian", "Did you mean 'train'?"),
        ("task.threshold=acuracy", "Did you mean 'accuracy'?"),
        ("task.labels=[good,hateful]", "expected one of ('good', 'hateful')"),
        ("features=nowhere", "nowhere"),
        ("weights.model=nowhere.pt", "nowhere.pt"),
        ("processor.max_tokens=1", "max_tokens is 1"),
    ],
)
def test_a_setting_that_cannot_work_is_explained(
    word: str, message: str, memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "experiment=hateful_memes/uniter_tiny",
        f"root={memes}",
        f"out={tmp_path / 'run'}",
        "progress=false",
    ]
    assert message in failing([*words, word], capsys)
    assert not (tmp_path / "run" / "bundle").exists()
    # what never began is not in the way of the corrected command
    assert main(["train", *words, "trainer.max_steps=2"]) == 0


def test_a_folder_with_another_run_is_kept(
    memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment=hateful_memes/text_bert_tiny", f"root={memes}", f"out={tmp_path / 'run'}"]
    words += ["progress=false", "trainer.max_steps=2"]
    assert main(["train", *words]) == 0
    weights = (tmp_path / "run/bundle/weights.safetensors").read_bytes()
    assert main(["train", *words]) == 0
    assert "complete already" in capsys.readouterr().out
    assert "seed was 1, now 2" in failing([*words, "seed=2"], capsys)
    assert (tmp_path / "run/bundle/weights.safetensors").read_bytes() == weights
    assert main(["train", *words, "seed=2", "overwrite=true"]) == 0
    assert (tmp_path / "run/bundle/weights.safetensors").read_bytes() != weights
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert "holds 'thesis.txt' but no run" in failing([*words, f"out={tmp_path / 'other'}"], capsys)


def test_multirun_makes_one_run_for_each_combination(memes: Path, tmp_path: Path) -> None:
    words = ["experiment=hateful_memes/text_bert_tiny", f"root={memes}", f"out={tmp_path}/run", "--multirun"]
    assert main(["train", *words, "seed=1,2", "progress=false", "trainer.max_steps=1"]) == 0
    seeds = [yaml.safe_load((tmp_path / f"run-{n}/config.yaml").read_text())["seed"] for n in (0, 1)]
    assert seeds == [1, 2]
    assert all((tmp_path / f"run-{n}/bundle/bundle.yaml").exists() for n in (0, 1))


def test_own_settings_outside_the_package(memes: Path, tmp_path: Path) -> None:
    assert main(["cp", "hateful_memes/text_bert_tiny", str(tmp_path / "conf")]) == 0
    mine = tmp_path / "conf/experiment/my/text_bert_tiny.yaml"
    mine.write_text(mine.read_text() + "seed: 77\n")
    words = [f"--config-dir={tmp_path / 'conf'}", "experiment=my/text_bert_tiny", f"root={memes}"]
    assert main(["train", *words, f"out={tmp_path}/run", "progress=false", "trainer.max_steps=1"]) == 0
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["seed"] == 77


@pytest.mark.parametrize(
    ("experiment", "switches"),
    [
        ("concat_bert_tiny", "task.loss=softmax_ce model.attend_padding=true task.batch_auroc=8"),
        (
            "concat_bert_tiny",
            "model.freeze_batch_norm=true task.class_weights=balanced task.label_smoothing=0.1",
        ),
        ("uniter_tiny", "processor.box_scale=swapped processor.tags=true model.attend_padding=true"),
        ("text_fasttext_tiny", "fasttext.line_suffix=/n trainer.monitor=loss data.balance=fixed"),
        ("uniter_tiny", "optim=hf_adamw schedule=triangle averaging=jump_swa trainer.reduction=sum"),
        (
            "text_bert_tiny",
            "optim=adam schedule=cosine averaging=ema trainer.precision=bf16-mixed data.workers=1",
        ),
    ],
)
def test_switches_reach_the_run(experiment: str, switches: str, memes: Path, tmp_path: Path) -> None:
    words = [
        f"experiment=hateful_memes/{experiment}",
        f"root={memes}",
        f"out={tmp_path}/run",
        "progress=false",
    ]
    assert main(["train", *words, *switches.split(), "trainer.max_epochs=1", "trainer.max_steps=2"]) == 0
    bundle = yaml.safe_load((tmp_path / "run/bundle/bundle.yaml").read_text())
    if "batch_auroc" in switches:
        assert next(iter(bundle["metrics"])) == "auroc_batch_mean"
    if "balanced" in switches:
        assert bundle["task"]["class_weights"] == pytest.approx([1, 1], abs=0.2)
    assert main(["predict", str(tmp_path / "run"), "--splits", "dev_seen"]) == 0
