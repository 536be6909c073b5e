"""From pictures and texts to a store of vectors, and from the store to a trained head."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from diptych.bundle import load_bundle
from diptych.cli import main
from diptych.cli.embed import experiment_for
from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore
from diptych.predict import Predictor
from diptych.recipe import compose


@pytest.fixture(scope="module")
def clip(memes, tmp_path_factory):
    """A bundle of a small CLIP that nothing has trained."""
    out = tmp_path_factory.mktemp("clip") / "run"
    words = ["experiment=hateful_memes/clip_linear_tiny", f"root={memes}", f"out={out}", "progress=false"]
    assert main(["train", *words, "loggers=[]", "trainer.max_steps=0"]) == 0
    return out


@pytest.fixture(scope="module")
def store(memes, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "clip"
    assert main(["embed", str(memes), str(out), "--model", str(clip)]) == 0
    return out


def train(memes, features, out, experiment, *words):
    given = [f"root={memes}", f"features={features}", f"out={out}", "progress=false", "loggers=[]"]
    return main(["train", f"experiment=hateful_memes/{experiment}", "model=embeddings", *given, *words])


SMALL = ["task.dim=48", "task.layers=1", "trainer.max_steps=2"]


def test_a_run_without_steps_saves_the_weights_it_began_with(clip, memes, capsys):
    bundle = load_bundle(clip)
    assert bundle.provenance["steps"] == 0
    assert 0 <= bundle.metrics["auroc"] <= 1
    words = ["experiment=hateful_memes/clip_linear_tiny", f"root={memes}", f"out={clip}", "progress=false"]
    assert main(["train", *words, "loggers=[]", "trainer.max_steps=0"]) == 0  # once more: it is complete


def test_a_store_has_every_item_once_and_names_the_model(store, memes, clip):
    opened = FeatureStore(store)
    split = HatefulMemes(memes, "train")
    assert {example.pairs[0].image for example in split} <= set(opened.keys())
    assert len(opened) == len({key for name in HatefulMemes.splits(memes) for key in
                               (one.pairs[0].image for one in HatefulMemes(memes, name))})  # fmt: skip
    assert opened.meta.parts == ("joint_image:48", "joint_text:48", "tower_image:48", "tower_text:48")
    assert opened.meta.detector.startswith("clip_linear_tiny ")
    assert opened.meta.detector.split()[1] != ""


def test_a_head_on_stored_vectors_scores_as_on_the_towers(store, memes, clip, tmp_path):
    """The same weights of the task, on vectors that are read and on vectors that are computed."""
    assert train(memes, store, tmp_path / "run", "hateclipper", *SMALL) == 0
    stored = Predictor(load_bundle(tmp_path / "run"))
    split = HatefulMemes(memes, "dev_seen")
    scores = stored.predict_dataset(split, features=FeatureStore(store)).scores
    towers = load_bundle(clip)
    live = Predictor(type(towers)(model=towers.model, task=stored.task, processor=towers.processor))
    np.testing.assert_allclose(live.predict_dataset(split).scores, scores, atol=1e-5)
    assert main(["predict", str(tmp_path / "run"), "--splits", "dev_seen"]) == 0


def test_a_store_of_another_model_is_one_error_with_both_names(store, memes, clip, tmp_path, capsys):
    assert train(memes, store, tmp_path / "run", "clip_mlp", "trainer.max_steps=1") == 0
    other = tmp_path / "other"
    words = ["--model", str(clip), "--name", "another"]
    assert main(["embed", str(memes), str(other), *words]) == 0
    capsys.readouterr()
    arguments = ["predict", str(tmp_path / "run"), "--splits", "dev_seen", "--features", str(other)]
    assert main([*arguments, "--out", str(tmp_path / "csv")]) == 2
    error = capsys.readouterr().err
    assert "another" in error
    assert "clip_linear_tiny" in error
    assert not (tmp_path / "csv" / "dev_seen.csv").exists()


def test_regions_are_no_embeddings_and_embeddings_no_regions(store, memes, tmp_path, capsys):
    assert train(memes, memes / "features", tmp_path / "a", "clip_mlp", "trainer.max_steps=1") == 2
    assert str(memes / "features") in capsys.readouterr().err
    words = ["experiment=hateful_memes/uniter_tiny", f"root={memes}", f"features={store}"]
    assert main(["train", *words, f"out={tmp_path / 'b'}", "progress=false", "trainer.max_steps=1"]) == 2
    assert "joint_image:48" in capsys.readouterr().err


def test_ones_own_vectors_are_kept_by_key(memes, tmp_path, capsys):
    keys = [one.pairs[0].image for name in ("train", "dev_seen") for one in HatefulMemes(memes, name)]
    vectors = np.random.default_rng(0).normal(size=(len(keys), 6)).astype(np.float32)
    table = pa.table({"id": keys[::-1], "vector": list(vectors[::-1])})
    pyarrow.parquet.write_table(table, tmp_path / "llm.parquet")
    np.save(tmp_path / "llm.npy", vectors)
    for name in ("llm.parquet", "llm.npy"):
        out = tmp_path / name.replace(".", "_")
        words = ["--from", str(tmp_path / name), "--splits", "train,dev_seen"]
        assert main(["embed", str(memes), str(out), *words]) == 0
        opened = FeatureStore(out)
        assert opened.meta.parts == ("pooled:6",)
        for key, vector in zip(keys, vectors, strict=True):
            np.testing.assert_array_equal(opened[key].features[0], vector)
    told = [line for line in capsys.readouterr().out.split("\n") if line.startswith("next: ")]
    assert [line.split()[3] for line in told] == ["experiment=hateful_memes/rgcl"] * 2
    words = ["task.fusion=pooled", "task.width=8", *SMALL]
    assert train(memes, out, tmp_path / "run", "rgcl", *words) == 0
    capsys.readouterr()
    np.save(tmp_path / "short.npy", vectors[1:])
    words = ["--from", str(tmp_path / "short.npy"), "--splits", "train,dev_seen"]
    assert main(["embed", str(memes), str(tmp_path / "no"), *words]) == 2
    assert f"{len(keys) - 1} rows" in capsys.readouterr().err
    np.save(tmp_path / "object.npy", np.array([[{}]], object), allow_pickle=True)
    assert main(["embed", str(memes), str(tmp_path / "no"), "--from", str(tmp_path / "object.npy")]) == 2
    assert not (tmp_path / "no").exists()


def test_a_folder_of_pictures_and_a_file_of_texts(memes, clip, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    keys = [one.pairs[0].image for one in HatefulMemes(memes, "dev_seen")][:3]
    for key in keys:
        shutil.copy(memes / "img" / f"{key}.png", pictures)
    (tmp_path / "texts.tsv").write_text("".join(f"{key}\tthe text {key}\n" for key in keys), encoding="utf-8")
    assert main(["embed", str(pictures), str(tmp_path / "alone"), "--model", str(clip)]) == 0
    assert FeatureStore(tmp_path / "alone").meta.parts == ("joint_image:48", "tower_image:48")
    both = ["--text", str(tmp_path / "texts.tsv")]
    assert main(["embed", str(pictures), str(tmp_path / "both"), "--model", str(clip), *both]) == 0
    assert main(["embed", str(tmp_path / "texts.tsv"), str(tmp_path / "texts"), "--model", str(clip)]) == 0
    texts, whole = FeatureStore(tmp_path / "texts"), FeatureStore(tmp_path / "both")
    for key in keys:
        np.testing.assert_allclose(texts[key].features[0, :48], whole[key].features[0, 48:96], atol=1e-5)
    capsys.readouterr()
    (tmp_path / "texts.tsv").write_text(f"{keys[0]}\tone\n", encoding="utf-8")
    assert main(["embed", str(pictures), str(tmp_path / "no"), "--model", str(clip), *both]) == 2
    assert keys[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "parts", "settings", "model", "kind"),
    [
        ("emoji", {"tower_image", "tower_text"}, ["lang=de"], "JointEmbeddings", "Emoji"),
        ("multi30k", {"tower_image", "tower_text"}, ["lang=fr"], "JointEmbeddings", "Multi30k"),
        ("hateful_memes", {"tower_image", "tower_text"}, [], "Embeddings", "HatefulMemes"),
        ("hateful_memes", {"pooled"}, [], "Embeddings", "HatefulMemes"),
        ("harm_c", {"pooled"}, ["separator=x"], "Embeddings", "Table"),
    ],
)
def test_the_command_that_is_told_fits_the_data_set(data, parts, settings, model, kind):
    config = compose([*f"experiment={experiment_for(data, parts, settings)}".split(), "root=a", "features=b"])
    assert config["model"]["_target_"].endswith(f".{model}")
    assert config["data"]["train"]["_target_"].endswith(f".{kind}")
    assert config.get("lang", "") == "".join(settings).partition("lang=")[2]


def test_what_cannot_work_is_one_line(memes, tmp_path, capsys):
    assert main(["embed", str(memes), str(tmp_path / "no"), "--model", "clip_b32"]) == 2
    assert "diptych convert" in capsys.readouterr().err
    assert main(["embed", str(memes), str(tmp_path / "no")]) == 2
    assert main(["embed", str(memes), str(memes / "img"), "--model", "x"]) == 2
    assert not (tmp_path / "no").exists()


def test_a_folder_of_transformers_is_loaded_by_name(memes, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.ViTModel(config).eval()
    network.save_pretrained(tmp_path / "vit")
    settings = (
        '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    (tmp_path / "vit" / "preprocessor_config.json").write_text(settings)
    model = f"transformers:{tmp_path / 'vit'}"
    assert main(["embed", str(memes / "img"), str(tmp_path / "store"), "--model", model]) == 0
    opened = FeatureStore(tmp_path / "store")
    assert opened.meta.parts == ("pooled:16",)
    assert opened.meta.detector.startswith("vit ")


def test_a_head_scores_a_bare_picture_with_the_towers_of_its_store(store, memes, clip, tmp_path, capsys):
    assert train(memes, store, tmp_path / "head", "hateclipper", *SMALL) == 0
    pair = HatefulMemes(memes, "dev_seen")[0].pairs[0]
    known = HatefulMemes(memes, "dev_seen").images[pair.image]
    new = shutil.copyfile(known, tmp_path / "new.png")
    command = ["--text", pair.text, "--model", str(tmp_path / "head"), "--json"]
    capsys.readouterr()
    assert main(["score", str(known), *command]) == 0
    expected = json.loads(capsys.readouterr().out)["probability"]
    assert main(["score", str(new), *command, "--towers", str(clip)]) == 0
    assert json.loads(capsys.readouterr().out)["probability"] == pytest.approx(expected, abs=1e-5)
    # Without them, and with other ones.
    assert main(["score", str(new), *command]) == 2
    assert "--towers" in capsys.readouterr().err
    assert main(["score", str(new), *command, "--towers", str(tmp_path / "head")]) == 2
    assert FeatureStore(store).meta.detector in capsys.readouterr().err
    assert main(["score", str(new), *command[:2], "--model", str(clip), "--towers", str(clip)]) == 2
    assert str(clip) in capsys.readouterr().err
