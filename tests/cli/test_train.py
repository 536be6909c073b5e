import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diptych.cli import main
from diptych.features import FeatureStore, write_store


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
        (["model=uniter_tinny"], "'uniter_tinny'. Did you mean 'uniter_tiny'?"),
        (["experiment=hateful_memes/uniter_tiny"], "root=FOLDER"),
        (["experiment=hateful_memes/uniter_tiny", "sead=3"], "'sead'. Did you mean 'seed'?"),
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
        ("optim.lrr=3", "'lrr'. Did you mean 'lr'?"),
        ("trainer.max_epoch=3", "'max_epoch'. Did you mean 'max_epochs'?"),
        ("data.batchsize=3", "'batchsize'. Did you mean 'batch_size'?"),
        ("data.train.split=trian", "Did you mean 'train'?"),
        ("task.threshold=acuracy", "Did you mean 'accuracy'?"),
        ("task.labels=[good,hateful]", "('good', 'hateful')"),
        ("features=nowhere", "nowhere"),
        ("weights.model=nowhere.pt", "nowhere.pt"),
        ("processor.max_tokens=1", "max_tokens is 1"),
        ("seed=one", "seed is 'one'"),
        ("seed=-1", "seed is -1"),
        ("trainer.max_steps=two", "max_steps='two'"),
        ("trainer=null", "trainer is null"),
        ("data.workers=-1", "data.workers is -1"),
        ("data.batch_size=many", "'batch_size': 'many'"),
        ("data.validate=null", "data.validate is None"),
        ("processor=null", "processor is None"),
        ("task.label_smoothing=5.0", "task.label_smoothing is 5"),
        ("model.vocab_size=10", "has 10 rows"),
        ("vocabulary=nowhere.txt", "nowhere.txt"),
        ("optim.lr=1e30", "not finite"),
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
    assert f"{tmp_path / 'run'} is complete" in capsys.readouterr().out
    refused = failing([*words, "seed=2"], capsys)
    assert all(word in refused for word in ("seed was 1, now 2", "overwrite=true", "--overwrite"))
    assert (tmp_path / "run/bundle/weights.safetensors").read_bytes() == weights
    assert main(["train", *words, "seed=2", "--overwrite"]) == 0
    assert (tmp_path / "run/bundle/weights.safetensors").read_bytes() != weights
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert "'thesis.txt'" in failing([*words, f"out={tmp_path / 'other'}"], capsys)


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


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("name", ["train.jsonl", "dev_seen.jsonl", "features", "vocabulary.txt"])
def test_a_run_on_data_that_has_changed_is_no_longer_this_run(
    name: str, complete: bool, spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_for(spoiled, tmp_path / "run", "uniter_tiny")
    assert main(["train", *words]) == 0
    if not complete:
        shutil.rmtree(tmp_path / "run/bundle")
    if name == "features":
        store = FeatureStore(spoiled / name)
        items = [(key, replace(store[key], features=store[key].features + 1)) for key in store]
        write_store(spoiled / name, items, store.meta, overwrite=True)
    elif name == "vocabulary.txt":
        (spoiled / name).write_text((spoiled / name).read_text() + "one more word\n")
    else:
        text = (spoiled / name).read_text()
        flip = {"0": "1", "1": "0"}
        (spoiled / name).write_text(re.sub(r'(?<="label": )[01]', lambda one: flip[one[0]], text))
    line = failing(words, capsys)
    assert str(spoiled / name) in line
    assert str(tmp_path / "run") in line
    assert main(["train", *words, "overwrite=true"]) == 0


def words_for(root: Path, out: Path, experiment: str = "concat_bert_tiny") -> list[str]:
    words = [f"experiment=hateful_memes/{experiment}", f"root={root}", f"out={out}", "progress=false"]
    return [*words, "loggers=[]", "trainer.max_steps=1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:-9], "train.jsonl:3: "),
        (lambda line: line.replace('"text"', '"txt"'), "train.jsonl:3: "),
        (lambda line: line.replace('"label": ', '"label": 7'), "train.jsonl:3: `label` is 7"),
        (lambda line: line.replace("img/", "../img/"), "train.jsonl:3: `img` is '../img/"),
        (lambda line: line.replace("img/", "/img/"), "expected a path inside the folder"),
        (lambda line: line.replace('"text": "', '"text": "\\ud83d'), "half a surrogate pair"),
        (lambda line: f"{line}\n{line}", "train.jsonl:4: id"),
    ],
)
def test_a_bad_record_stops_before_anything_is_written(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change, message: str
) -> None:
    path = spoiled / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = change(lines[2])
    path.write_text("\n".join(lines), encoding="utf-8")
    assert message in failing(words_for(spoiled, tmp_path / "run"), capsys)
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert main(["check", str(spoiled)]) == 1


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", lambda records: records[4].pop("label"), "1 of 48 training"),
        ("train", list.clear, "the training split"),
        ("dev_seen", list.clear, "the validation split"),
        (
            "dev_seen",
            lambda records: [record.pop("label") for record in records],
            "8 of 8 validation",
        ),
    ],
)
def test_labels_that_are_missing_show_before_the_first_step(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit, split: str, change, message: str
) -> None:
    edit(change, split)
    assert message in failing(words_for(spoiled, tmp_path / "run"), capsys)
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("split", "message"), [("train", "all training examples have the label"), ("dev_seen", "not a number")]
)
def test_a_split_of_one_class_is_warned_about(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit, split: str, message: str
) -> None:
    edit(lambda records: [record.update(label=1) for record in records], split)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["train", *words_for(spoiled, tmp_path / "run")]) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.startswith("diptych: warning: ")
    assert message in line


def test_odd_texts_and_pictures_are_trained_on_and_predicted(
    spoiled: Path, pictures: list[Path], tmp_path: Path, edit
) -> None:
    texts = [
        "",
        "   ",
        "sunset paint " * 5000,
        "\U0001f600" * 400,
        "\u05e9\u05dc\u05d5\u05dd \u202e\u0000\u2028 x",
    ]
    edit(lambda records: [record.update(text=text) for record, text in zip(records, texts, strict=False)])
    edit(lambda records: [record.update(id=f"a b/{number}\u00e9") for number, record in enumerate(records)])
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    odd = [Image.new("RGB", (1, 1)), Image.new("CMYK", (9, 9)), Image.new("P", (9, 9))]
    odd += [Image.fromarray(ramp), frames[0], Image.new("LA", (9, 9)), Image.new("RGB", (3000, 1))]
    formats = ["PNG", "JPEG", "GIF", "PNG", "GIF", "PNG", "PNG"]
    for path, picture, format in zip(pictures[: len(odd)], odd, formats, strict=True):
        more = {"save_all": True, "append_images": frames[1:]} if picture is frames[0] else {}
        picture.save(path, format, **more)
    for experiment in ("concat_bert_tiny", "text_fasttext_tiny", "uniter_tiny"):
        out = tmp_path / experiment
        assert main(["train", *words_for(spoiled, out, experiment)]) == 0
        assert main(["predict", str(out), "--splits", "train"]) == 0
        ids = [line.split(",")[0] for line in (out / "predictions/train.csv").read_text().splitlines()[1:]]
        assert ids == [f"a b/{number}\u00e9" for number in range(48)]


def test_memes_without_regions_stop_training_or_are_left_out(
    spoiled: Path, edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(records):
        shutil.copy(spoiled / records[1]["img"], spoiled / "img/new.png")
        records[1]["img"] = "img/new.png"

    edit(rename)
    words = words_for(spoiled, tmp_path / "run", "uniter_tiny")
    assert "new" in failing(words, capsys)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["train", *words, "processor.missing=skip"]) == 0
    assert "1 of 48 examples " in capsys.readouterr().err
    about = yaml.safe_load((tmp_path / "run/bundle/bundle.yaml").read_text(encoding="utf-8"))
    assert about["provenance"]["training"]["examples"] == 47
    assert main(["predict", str(tmp_path / "run"), "--splits", "train"]) == 0
    assert len((tmp_path / "run/predictions/train.csv").read_text().splitlines()) == 1 + 48


@pytest.mark.slow
def test_a_failed_start_is_not_in_the_way_once_mended(
    spoiled: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = pictures[0]
    whole, words = picture.read_bytes(), words_for(spoiled, tmp_path / "run")
    picture.unlink()
    assert pictures[0].name in failing(words, capsys)
    picture.write_bytes(whole[:900])
    for workers in (0, 1):
        assert f"{picture.name}: " in failing([*words, f"data.workers={workers}"], capsys)
    picture.write_bytes(whole)
    assert main(["train", *words]) == 0


def test_a_damaged_checkpoint_is_refused_and_never_executed(
    memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_for(memes, tmp_path / "run", "text_bert_tiny")
    assert main(["train", *words]) == 0
    shutil.rmtree(tmp_path / "run/bundle")
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert "last.ckpt: " in failing(words, capsys)
    bomb = f"cos\nmkdir\n(S'{tmp_path / 'executed'}'\ntR."
    last.write_text(bomb)
    assert "last.ckpt: " in failing(words, capsys)
    assert not (tmp_path / "executed").exists()
    last.unlink()
    assert main(["train", *words, "overwrite=true"]) == 0
    (tmp_path / "run/config.yaml").write_text("a: [1")
    assert "config.yaml: " in failing(words, capsys)


def test_a_sweep_ends_with_its_first_failure(
    memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_for(memes, tmp_path / "run", "text_bert_tiny")
    assert "seed is 'x'" in failing([*words, "--multirun", "seed=1,x,2"], capsys)
    assert (tmp_path / "run-0/bundle").is_dir()
    assert not (tmp_path / "run-2").exists()


def test_any_path_can_be_typed(memes: Path, tmp_path: Path) -> None:
    root = tmp_path / "m\u00e9mes & (mine) = it's"
    root.symlink_to(memes)
    out = tmp_path / "\U0001f600 run"
    assert main(["train", *words_for(root, out, "text_bert_tiny")]) == 0
    assert (out / "bundle").is_dir()


def test_a_place_that_cannot_be_and_a_full_disk(
    memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], full_disk
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "is a file; expected a folder" in failing(words_for(memes, out), capsys)
    words = words_for(memes, tmp_path / "run", "text_bert_tiny")
    with full_disk(100_000):
        assert "best.ckpt: " in failing(words, capsys)
    assert not any((tmp_path / "run/checkpoints").iterdir())
    assert main(["train", *words]) == 0


def test_fix_match_learns_beside_memes_without_labels(memes, tmp_path, capsys):
    words = ["train", "experiment=hateful_memes/fixmatch_tiny", f"root={memes}", "progress=false"]
    words += ["loggers=[]", "trainer.max_steps=1", "data.train.limit=8", f"out={tmp_path / 'run'}"]
    # The labels of this split are withheld.
    assert main([*words, "data.beside.unlabeled.split=test_unseen"]) == 0
    # What is trained on needs labels all the same.
    assert main([*words[:-1], f"out={tmp_path / 'other'}", "data.train.split=test_seen"]) == 2
    assert "data.train.split" in capsys.readouterr().err
