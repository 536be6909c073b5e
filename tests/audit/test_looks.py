"""Looks: counted from run folders, and what luck is worth."""

import json

import numpy as np
import pytest
import yaml

from diptych.audit import find_runs, read_run
from diptych.audit.looks import expected_maximum, looks_at, standard_error
from diptych.data.inputs import file_checksum
from diptych.errors import ConfigError, FormatError


def write_run(folder, memes, *, values=(0.6, 0.7), split="dev_seen", predictions=()):
    (folder / "predictions").mkdir(parents=True)
    config = {"name": "a", "seed": 1, "data": {"train": {}, "validate": {"split": split}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    files = (memes / "train.jsonl", memes / "dev_seen.jsonl")
    (folder / "inputs.json").write_text(json.dumps({str(file): file_checksum(file) for file in files}))
    lines = [f"{number},,{value},0.5\n" for number, value in enumerate(values, 1)]
    (folder / "metrics.csv").write_text("step,train/loss,val/auroc,val/loss\n1,0.9,,\n" + "".join(lines))
    for name in predictions:
        (folder / "predictions" / f"{name}.npz").write_bytes(b"")
    return folder


def test_looks_are_counted(twins, memes, tmp_path):
    write_run(tmp_path / "runs/a", memes, predictions=["dev_seen", "test_seen"])
    write_run(tmp_path / "runs/b", memes, values=(0.65, 0.75, 0.7))
    # A run that another one replaced is none.
    write_run(tmp_path / "runs/b/.replaced", memes)
    dev, test = looks_at(twins.sheet, find_runs([tmp_path / "runs"]))
    assert (dev.split, dev.runs, dev.validations, dev.files) == ("dev_seen", 2, 5, 1)
    assert (dev.measure, dev.best) == ("auroc", 0.75)
    assert 0 < dev.optimism < dev.most
    assert dev.most == pytest.approx(dev.error * expected_maximum(5))
    assert (test.split, test.runs, test.files) == ("test_seen", 0, 1)
    assert np.isnan(test.most)


def test_the_standard_error_is_that_of_the_bootstrap():
    from diptych.metrics import auroc

    generator = np.random.default_rng(0)
    truth = np.arange(200) < 80
    areas = [auroc(truth, generator.normal(size=200) + truth) for _ in range(100)]
    labels = ["yes" if one else "no" for one in truth.tolist()]
    assert standard_error("auroc", float(np.mean(areas)), labels, "yes") == pytest.approx(
        np.std(areas), rel=0.15
    )
    assert standard_error("accuracy", 0.5, labels, "yes") == pytest.approx(0.5 / np.sqrt(200))
    assert np.isnan(standard_error("bleu", 20.0, labels, "yes"))


def test_the_best_of_many_is_lucky():
    draws = np.random.default_rng(0).normal(size=(20_000, 10)).max(axis=1)
    assert expected_maximum(10) == pytest.approx(draws.mean(), abs=0.02)
    assert expected_maximum(1) == 0


def test_folders_that_are_no_runs_are_named(twins, memes, tmp_path):
    with pytest.raises(ConfigError, match="nothing"):
        find_runs([tmp_path / "nothing"])
    with pytest.raises(ConfigError, match=str(tmp_path)):
        find_runs([tmp_path])
    run = write_run(tmp_path / "run", memes)
    (run / "metrics.csv").write_text("step,val/auroc\n1,0.5\n2,hot\n")
    with pytest.raises(FormatError, match=r"metrics\.csv:3"):
        read_run(run)
    (run / "metrics.csv").unlink()
    assert read_run(run).looks == []
    (run / "inputs.json").write_text(json.dumps({"memes/train.jsonl": "0" * 64}))
    with pytest.raises(ConfigError, match=str(run)):
        looks_at(twins.sheet, [read_run(run)])
    (run / "config.yaml").write_text("data: 3\n")
    with pytest.raises(FormatError, match=r"config\.yaml"):
        read_run(run)
