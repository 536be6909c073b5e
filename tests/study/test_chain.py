"""Chains: runs that start from earlier ones."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from diptych.cli import main
from diptych.errors import ConfigError, FormatError
from diptych.study import Checksums, Planner, plan, read_study
from diptych.study.run import _phases

CHAIN = {
    "name": "chain",
    "features": {"all": "features"},
    "vocabulary": "auto",
    "overrides": ["trainer.max_steps=1", "data.batch_size=8", "model.layers=1"],
    "steps": {
        "b": {"experiment": "hateful_memes/uniter_tiny", "features": "all"},
        "c": {"experiment": "hateful_memes/uniter_tiny", "seed": 2, "start": ["b"]},
        "d": {"experiment": "hateful_memes/uniter_tiny", "seed": 3, "start": ["b", "c"]},
    },
}


@pytest.fixture
def tree():
    return {
        **CHAIN,
        "overrides": [*CHAIN["overrides"]],
        "steps": {name: dict(step) for name, step in CHAIN["steps"].items()},
    }


@pytest.fixture
def graph(write, memes, tmp_path):
    def planned(tree, **more):
        planner = Planner(checksums=Checksums(tmp_path / "sums.json"), home=memes, **more)
        study = read_study(str(write(tree, "chain"))).select()
        return plan(study, root=memes.absolute(), out=tmp_path / "out", limit=20, planner=planner)

    return planned


def test_a_step_runs_after_those_it_starts_from(graph, tree):
    tree["steps"]["other"] = {"experiment": "hateful_memes/uniter_tiny"}
    made = graph(tree)
    assert [[lane[0].name for lane in lanes] for lanes in _phases(made)] == [["b", "other"], ["c"], ["d"]]
    folders = {name: str(step.folder) for name, step in made.steps.items()}
    weights = {name: step.settings["weights"]["model"] for name, step in made.steps.items()}
    assert weights == {"b": None, "c": folders["b"], "d": [folders["b"], folders["c"]], "other": None}


def test_a_changed_step_repeats_what_starts_from_it(graph, tree):
    before = graph(tree).steps
    tree["steps"]["c"]["seed"] = 5
    after = graph(tree).steps
    assert {name for name in before if before[name].key != after[name].key} == {"c", "d"}


@pytest.mark.filterwarnings("ignore")
def test_every_run_starts_from_the_weights_of_the_last(write, tree, memes, tmp_path, capsys):
    tree["overrides"].append("optim.lr=1e-12")
    path, out = write(tree, "chain"), tmp_path / "out"
    words = [str(path), f"root={memes}", f"out={out}", "limit=20"]
    assert main(["study", "run", *words, "members=c"]) == 0
    assert not list(out.glob("d-*")), "c needs b, and not what follows"
    assert main(["study", "run", *words]) == 0
    said = capsys.readouterr().out
    assert said.count("[2/2] c:") == 1, "what is done stays"
    one, *others = (load_file(*out.glob(f"{name}-*/bundle/weights.safetensors")) for name in ("b", "c", "d"))
    for other in others:
        for name, values in one.items():
            if name.startswith("task."):  # a new head, of another seed
                continue
            np.testing.assert_allclose(values, other[name], atol=1e-6, err_msg=name)
    card = (out / "README.md").read_text()
    assert re.search(r"\| d \| auroc \| [01]\.\d{4} \|", card)
    assert "## Blend" not in card
    assert main(["study", "status", str(path), f"out={out}"]) == 0
    assert "3 of 3 steps done, 0 failed, 0 left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "step", "error", "named"),
    [
        ("c", {"start": ["d"]}, ConfigError, ("steps.c.start", "'d'")),
        ("b", {"features": "none"}, ConfigError, ("steps.b.features", "'none'")),
        ("b", {"sead": 1}, FormatError, ("steps.b.sead",)),
        ("../b", {}, ConfigError, ("'../b'",)),
        ("b", {"start": "b"}, FormatError, ("steps.b.start",)),
    ],
    ids=["later", "features", "key", "name", "list"],
)
def test_wrong_chains_are_refused(write, tree, name, step, error, named):
    given = {"experiment": "hateful_memes/uniter_tiny", **tree["steps"].get(name, {}), **step}
    tree["steps"][name] = given
    with pytest.raises(error) as raised:
        read_study(str(write(tree, "chain")))
    assert all(word in str(raised.value) for word in named)


def test_what_belongs_to_members_is_refused(write, tree, memes, tmp_path, capsys):
    path = write(tree, "chain")
    words = [str(path), f"root={memes}", f"out={tmp_path / 'out'}"]
    assert main(["study", "run", *words, "seeds=1"]) == 2
    assert "seeds" in capsys.readouterr().err
    assert main(["study", "predict", *words, f"bundles={tmp_path}"]) == 2
    assert "chain" in capsys.readouterr().err


def test_the_chain_of_mmbert():
    for name in ("mmbert_chain", "mmbert_chain_tiny"):
        links = read_study(name).links
        assert [(link.name, link.start) for link in links] == [("b", ()), ("c", ("b",)), ("bcb", ("b", "c"))]
        assert all(Path(link.experiment).name.startswith("mmbert_task_") for link in links)
