"""LXMERT's folders of Hugging Face become bundles that answer questions about a picture."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from diptych.bundle import read_content
from diptych.cli import main
from diptych.convert import convert_checkpoint
from diptych.errors import CheckpointMismatch, ConfigError
from diptych.features import FeatureStore
from diptych.study import score_meme
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

WORDS = [*SPECIAL_TOKENS, "what", "is", "on", "the", "table", "?"]
SMALL = {"vocab_size": len(WORDS), "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}
SMALL |= {"l_layers": 1, "r_layers": 1, "x_layers": 1, "num_object_labels": 7, "num_attr_labels": 5}
ANSWERS = ["cat", "dog", "table", "yes", "no", "", "2"]


def saved(
    folder: Path, name: str = "LxmertForQuestionAnswering", *, answers: int = 7, width: int = 16
) -> Path:
    torch.manual_seed(0)
    config = transformers.LxmertConfig(**SMALL, num_qa_labels=answers, visual_feat_dim=width)
    getattr(transformers, name)(config).save_pretrained(folder)
    write_vocabulary(folder / "vocab.txt", WORDS)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "trainval_label2ans.json"
    path.write_text(json.dumps(ANSWERS))
    return path


def test_a_bundle_answers_questions_about_a_picture(
    tmp_path: Path, table: Path, memes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeatureStore(memes / "features")
    source = saved(tmp_path / "hf", width=store.meta.feature_dim)
    assert main(["convert", str(source), str(tmp_path / "b"), "--answers", str(table)]) == 0
    key = next(iter(store))
    image, text = memes / "img" / f"{key}.png", "what is on the table?"
    verdict = score_meme(
        tmp_path / "b", image=image, text=text, features={"features": memes / "features"}, device="cpu"
    )
    assert len(verdict.scores) == 5 < len(ANSWERS)
    assert verdict.answer == next(iter(verdict.scores))
    assert [*verdict.scores.values()] == sorted(verdict.scores.values(), reverse=True)
    assert verdict.probability == verdict.scores[verdict.answer]
    capsys.readouterr()
    words = ["score", str(image), "--text", text, "--model", str(tmp_path / "b")]
    assert main([*words, "--features", str(memes / "features")]) == 0
    shown = capsys.readouterr().out
    assert all(f"{value:.4f}" in shown for value in verdict.scores.values())
    second = ["score", str(image), str(image), *words[2:]]
    assert main([*second, "--features", str(memes / "features")]) == 2
    peer = transformers.LxmertForQuestionAnswering.from_pretrained(source).eval()
    regions = store[key]
    ids = [WORDS.index(word) for word in ("[CLS]", *text.replace("?", " ?").split(), "[SEP]")]
    with torch.inference_mode():
        logits = peer(
            input_ids=torch.tensor([ids]),
            visual_feats=torch.tensor(regions.features).float()[None],
            visual_pos=torch.from_numpy(regions.boxes / [*regions.size, *regions.size]).float()[None],
        ).question_answering_score[0]
    best = logits.sigmoid().topk(5)
    assert [*verdict.scores] == [ANSWERS[place] for place in best.indices.tolist()]
    assert [*verdict.scores.values()] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_regions_are_found_in_the_picture(
    tmp_path: Path, table: Path, memes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((memes / "img").iterdir())
    (tmp_path / "list.txt").write_text(f"{image.absolute()}\n")
    assert (
        main(
            [
                "extract",
                str(tmp_path / "list.txt"),
                str(tmp_path / "f"),
                "--detector",
                "tiny",
                "--weights",
                "random",
                "--boxes",
                "5",
            ]
        )
        == 0
    )
    [store] = [path for path in (tmp_path / "f").iterdir() if path.is_dir()]
    source = saved(tmp_path / "hf", width=FeatureStore(store).meta.feature_dim)
    convert_checkpoint(source, tmp_path / "b", answers=table)
    words = ["score", str(image), "--text", "what is it", "--model", str(tmp_path / "b"), "--json"]
    outputs = []
    for places in (["--features", str(store)], ["--weights", "tiny=random", "--boxes", "5"]):
        capsys.readouterr()
        assert main([*words, *places]) == 0
        outputs.append(json.loads(capsys.readouterr().out)["scores"])
    assert outputs[0] == pytest.approx(outputs[1], abs=1e-6)
    assert main(words) == 2  # neither regions nor a way to make them
    assert "features=FOLDER" in capsys.readouterr().err


def test_the_table_must_fit_the_head(tmp_path: Path, table: Path) -> None:
    source = saved(tmp_path / "hf", answers=9)
    with pytest.raises(ConfigError, match=rf"9 answers.*{table.name} has 7"):
        convert_checkpoint(source, tmp_path / "b", answers=table)
    with pytest.raises(ConfigError, match=re.escape(str(table))):
        convert_checkpoint(saved(tmp_path / "bare", "LxmertModel"), tmp_path / "b", answers=table)
    convert_checkpoint(saved(tmp_path / "p", "LxmertForPreTraining"), tmp_path / "b", answers=table)
    assert read_content(tmp_path / "b")["task"]["objectives"]["answers"]["labels"] == ANSWERS


@pytest.mark.parametrize(("count", "name"), [(3129, "data/vqa"), (1842, "data/gqa")])
def test_answers_of_a_published_number_ask_for_their_table(tmp_path: Path, count: int, name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{count} answers.*--answers FILE.*{name}"):
        convert_checkpoint(saved(tmp_path / "hf", answers=count), tmp_path / "b")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_encoder_is_filled_whole_or_refused(tmp_path: Path, table: Path, prefix: str) -> None:
    source = saved(tmp_path / "hf")
    path = source / "model.safetensors"
    weights = {f"{prefix}{name}": tensor for name, tensor in load_file(path).items()}
    save_file(weights, path)
    convert_checkpoint(source, tmp_path / "whole", answers=table)
    lost = f"{prefix}lxmert.encoder.x_layers.0.visual_attention.att.query.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, path)
    with pytest.raises(CheckpointMismatch, match=r"cross_layers\.0\.attention\.query\.weight|x_layers\.0"):
        convert_checkpoint(source, tmp_path / "part", answers=table)
    assert not (tmp_path / "part").exists()
