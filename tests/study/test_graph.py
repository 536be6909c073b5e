import copy
import shutil
import sys

import pytest
import torch

from diptych.errors import ConfigError
from diptych.recipe import compose
from diptych.recipe.call import call
from diptych.study import Checksums, Planner, plan, read_study, wrap_up

graph_module = sys.modules[plan.__module__]


@pytest.fixture
def keys(tmp_path, memes, write, monkeypatch):
    """Names to keys of the steps of a study, averages and blend included."""
    composed = {}

    def compose_once(words):  # a test plans the same members again and again
        key = tuple(words)
        composed[key] = composed.get(key) or compose(words)
        return copy.deepcopy(composed[key])

    monkeypatch.setattr(graph_module, "compose", compose_once)
    root = tmp_path / "data"
    root.mkdir()
    for path in memes.glob("*.jsonl"):
        shutil.copyfile(path, root / path.name)
    for view in ("traindev", "pretrain"):
        shutil.copyfile(root / "train.jsonl", root / f"{view}.jsonl")

    def made(tree, *, home=root, limit=None, extra=(), sums="sums.json"):
        study = read_study(str(write(tree)))
        planner = Planner(checksums=Checksums(tmp_path / sums), home=memes, extra=extra)
        graph = plan(study, root=home, out=tmp_path / "out", limit=limit, planner=planner)
        return {name: step.key for name, step in wrap_up(graph, list(graph.steps)).steps.items()}

    made.root = root
    return made


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def downstream(family, *members):
    steps = {
        f"{one}/{view}{more}"
        for one in members
        for view in ("train", "traindev")
        for more in ("", "/predict")
    }
    return steps | {f"{family}/average", "ensemble"}


@pytest.mark.slow
def test_a_changed_setting_repeats_only_what_depends_on_it(keys, tree):
    before = keys(tree)
    assert len(set(before.values())) == len(before)
    assert keys(tree) == before
    tree["families"]["U"]["members"]["U2"]["seed"] = 3
    assert changed(before, keys(tree)) == downstream("U", "U2")
    tree["families"]["U"]["members"]["U2"]["seed"] = 2
    tree["families"]["U"]["pretrain"]["seed"] = 5
    assert changed(before, keys(tree)) == downstream("U", "U1", "U2") | {"U-pretrain/pretrain"}
    tree["families"]["U"]["pretrain"].pop("seed")
    tree["ensemble"]["method"] = "simplex"
    assert changed(before, keys(tree)) == {"ensemble"}
    tree["ensemble"]["method"] = "greedy"
    assert changed(before, keys(tree, extra=("optim.lr=2e-3",))) == set(before)
    tree["families"]["U"]["compat"] = {"traindev": ["data.train.twice=dev_seen"]}
    assert keys(tree) == before, "a quirk counts under compat only"
    tree["ensemble"]["compat"] = True
    trained = {f"{one}/traindev{more}" for one in ("U1", "U2") for more in ("", "/predict")}
    assert changed(before, keys(tree)) == trained | {"U/average", "E/average", "ensemble"}


def test_a_changed_file_repeats_only_what_reads_it(keys, tree):
    before = keys(tree)
    path = keys.root / "test_seen.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    dirty = {f"{name}/traindev/predict" for name in ("U1", "U2", "E1")}
    assert changed(before, keys(tree)) == dirty | {"U/average", "E/average", "ensemble"}


def test_a_vocabulary_repeats_only_what_reads_it(keys, tree):
    """UNITER keeps capitals here, ERNIE-ViL does not."""
    cased = "processor.text.lowercase=false"
    tree["families"]["U"]["overrides"] = [cased]
    tree["families"]["U"]["pretrain"]["overrides"].append(cased)
    (keys.root / "vocabulary.txt").write_text("[unk]\n")
    before = keys(tree)
    (keys.root / "vocabulary-cased.txt").write_text("[UNK]\n")
    assert changed(before, keys(tree)) == downstream("U", "U1", "U2") | {"U-pretrain/pretrain"}


def test_a_study_may_move(keys, tree, tmp_path):
    before = keys(tree)
    elsewhere = shutil.copytree(keys.root, tmp_path / "elsewhere")
    assert keys(tree, home=elsewhere, sums="others.json") == before


def test_members_that_failed_leave_the_average_and_its_key(keys, tree, tmp_path, memes, write):
    study = read_study(str(write(tree)))
    planner = Planner(checksums=Checksums(tmp_path / "sums.json"), home=memes)
    graph = plan(study, root=keys.root, out=tmp_path / "out", limit=None, planner=planner)
    done = [name for name in graph.steps if name != "U2/traindev/predict"]
    part = wrap_up(graph, done).steps["U/average"]
    assert part.settings["members"] == ["U1"]
    assert part.needs == ("U1/train/predict", "U1/traindev/predict")
    assert part.key != wrap_up(graph, list(graph.steps)).steps["U/average"].key
    assert "ensemble" not in wrap_up(graph, []).steps


@pytest.mark.slow
def test_every_member_of_vilio_is_a_model_that_can_be_built(keys, tmp_path, memes, write):
    stores = dict.fromkeys(read_study("vilio").features, "features")
    vocabularies = {"uncased": "auto", "cased": "auto"}
    path = write({"extends": "vilio", "features": stores, "vocabularies": vocabularies, "default": []})
    study = read_study(str(path)).select(["O", "U", "V", "X", "D", "ES", "EL"], seeds=1)
    planner = Planner(checksums=Checksums(tmp_path / "sums.json"), home=memes)
    graph = plan(study, root=keys.root, out=tmp_path / "out", limit=None, planner=planner)
    trained = {name: step for name, step in graph.steps.items() if step.kind in ("train", "pretrain")}
    assert len(trained) == 7 * 2 + 3
    for name, step in trained.items():
        with torch.device("meta"):
            model = call({**step.settings["model"], "vocab_size": 99})
        trainer = step.settings["trainer"]
        ernie = name.startswith("E")
        assert trainer["max_steps"] == (2500 if ernie else None), name
        assert trainer["keep"] == ("average" if step.kind == "train" and not ernie else "last"), name
        if (start := graph.steps.get(f"{step.lane[0]}-pretrain/pretrain")) and step.kind == "train":
            with torch.device("meta"):
                before = call({**start.settings["model"], "vocab_size": 99})
            shapes = [{k: v.shape for k, v in one.state_dict().items()} for one in (model, before)]
            assert shapes[0] == shapes[1], f"{name} cannot start from what it was pre-trained to"


def test_missing_features_and_splits_are_named(keys, tree):
    tree["features"]["all"] = "nowhere"
    with pytest.raises(ConfigError, match=r"nowhere.*'all'"):
        keys(tree)
    tree["features"]["all"] = "features"
    tree["runs"]["train"] = ["dev_seen", "test_sen"]
    with pytest.raises(ConfigError, match=r"test_sen\.jsonl"):
        keys(tree)
