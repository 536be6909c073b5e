"""Retrieval by two towers: live, and on stored vectors with a trained layer for each side."""

import json

import numpy as np
import pytest
import torch
from tests.datasets.emoji_sources import emoji_sources

from diptych.cli import main
from diptych.datasets import Emoji, fabricate
from diptych.errors import ConfigError
from diptych.features import FeatureStore
from diptych.models import JointEmbeddings
from diptych.predict import load, retrieve


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A world of emoji, a CLIP that nothing has trained, and its vectors of two languages."""
    folder = tmp_path_factory.mktemp("joint")
    fabricate(folder / "emoji", "emoji", size=40, sources=emoji_sources(folder))
    words = [f"root={folder}/emoji", f"out={folder}/clip", "progress=false", "loggers=[]"]
    more = ["model=clip_tiny", "data=emoji", "task=contrast", "trainer.max_steps=0", "lang=de"]
    assert main(["train", *words, *more]) == 0
    command = ["embed", f"{folder}/emoji", "", "--model", f"{folder}/clip", "--data", "emoji", "--set", ""]
    for lang, more in (("en", []), ("de", ["--pictures", f"{folder}/en"])):
        command[2], command[-1] = f"{folder}/{lang}", f"lang={lang}"
        assert main([*command, *more]) == 0
    return folder


def found(folder, run, *words):
    command = ["retrieve", f"{folder}/{run}", "--split", "test", "--by", "cosine", "--queries", "0"]
    assert main([*command, "--samples", "20", "--json", *words]) == 0


def test_a_dual_encoder_ranks_by_its_joint_vectors(made, tmp_path, capsys):
    found(made, "clip", "--out", str(tmp_path / "found"))
    measures = json.loads(capsys.readouterr().out)["measures"]
    assert 0 <= measures["text_to_image"]["recall@10"]["value"] <= 1
    split, store = Emoji(made / "emoji", "test", lang="de"), FeatureStore(made / "de")
    rows = np.concatenate([store[one.pairs[0].image].features for one in split])
    assert store.meta.parts[:2] == ("joint_image:48", "joint_text:48")
    scores = np.load(tmp_path / "found" / "scores.npy")
    np.testing.assert_allclose(scores, rows[:, :48] @ rows[:, 48:96].T, atol=1e-5)


def test_pictures_are_taken_from_a_store_of_the_same_model(made, tmp_path, capsys):
    stores = [FeatureStore(made / lang) for lang in ("en", "de")]
    assert stores[0].meta.detector == stores[1].meta.detector
    one, other = (np.concatenate([store[key].features for key in stores[0]]) for store in stores)
    images = np.r_[0:48, 96:144]
    np.testing.assert_array_equal(one[:, images], other[:, images])
    texts = np.r_[48:96, 144:192]
    assert np.abs(one[:, texts] - other[:, texts]).max() > 1e-3
    command = ["embed", f"{made}/emoji", f"{tmp_path}/out", "--data", "emoji", "--model", f"{made}/clip"]
    assert main([*command, "--pictures", f"{made}/en", "--name", "other"]) == 2
    assert "other" in capsys.readouterr().err
    assert main([*command, "--pictures", f"{made}/en", "--parts", "joint_text"]) == 2
    assert "joint_text" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(made):
    """Two layers on the English vectors."""
    words = [f"root={made}/emoji", f"features={made}/en", f"out={made}/run", "progress=false"]
    small = ["loggers=[]", "trainer.max_steps=2", "data.batch_size=16", "model.joint=8"]
    assert main(["train", "experiment=emoji/retrieval", *words, *small]) == 0
    return made / "run"


def cosines(run, store, lang):
    """Of the split's pictures and texts by the run's layers, from a store."""
    model = load(run, device="cpu", pretrained=True).model
    assert isinstance(model, JointEmbeddings)
    split, store = Emoji(run.parent / "emoji", "test", lang=lang), FeatureStore(store)
    rows = torch.tensor(np.concatenate([store[one.pairs[0].image].features for one in split]))
    with torch.inference_mode():
        image, text = model.image(rows[:, 96:144]), model.text(rows[:, 144:])
        return torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)


def test_two_layers_on_stored_vectors_are_trained_and_rank(made, run, tmp_path, capsys):
    # In another language the texts are those of its store.
    more = ["--set", "lang=de", "--features", f"{made}/de", "--out", f"{tmp_path}/found"]
    found(made, "run", *more)
    scores = np.load(tmp_path / "found" / "scores.npy")
    np.testing.assert_allclose(scores, cosines(run, made / "de", "de"), atol=1e-5)


def test_towers_that_are_lacking(made, tmp_path, capsys):
    store = f"{tmp_path}/pictures"
    command = ["embed", f"{made}/emoji", store, "--data", "emoji", "--model", f"{made}/clip"]
    assert main([*command, "--parts", "tower_image", "--pictures", f"{made}/en"]) == 0
    words = [f"root={made}/emoji", f"features={store}", f"out={tmp_path}/run", "progress=false"]
    assert main(["train", "experiment=emoji/retrieval", *words, "loggers=[]"]) == 2
    assert "tower_text" in capsys.readouterr().err


def test_towers_rank_what_is_in_no_store_as_a_store_would(made, run, tmp_path, capsys):
    # Two texts of each picture, which no store has room for.
    found(made, "run", "--set", "lang=en,de", "--towers", f"{made}/clip", "--out", f"{tmp_path}/both")
    scores = np.load(tmp_path / "both" / "scores.npy")
    columns = json.loads((tmp_path / "both" / "retrieval.json").read_text())["columns"]
    for lang in ("en", "de"):
        mine = [number for number, name in enumerate(columns) if name.endswith(lang)]
        np.testing.assert_allclose(scores[:, mine], cosines(run, made / lang, lang), atol=1e-5)


def test_towers_of_other_vectors_are_refused(made, run, tmp_path):
    for given, name in (
        ({"run": run, "towers": run}, f"{run} has the checksum"),
        ({"run": run, "towers": made / "clip", "features": made / "de"}, "features"),
        ({"run": run, "towers": made / "clip", "by": "match"}, "match"),
        ({"run": made / "clip", "towers": made / "clip"}, "Clip"),
    ):
        with pytest.raises(ConfigError, match=name):
            retrieve(split="test", out=tmp_path / "x", **{"by": "cosine", **given})
