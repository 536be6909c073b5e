"""From words to configurations."""

from pathlib import Path

import pytest
import yaml

from diptych.cli import main
from diptych.errors import ConfigError
from diptych.recipe import as_yaml, combinations, compose

WORDS = ["experiment=hateful_memes/uniter_tiny", "root=FOLDER"]


def test_words_make_the_whole_tree_of_plain_values():
    config = compose([*WORDS, "model.dropout=0.25", "optim.lr=1e-5"])
    assert config["model"]["dropout"] == 0.25
    assert config["features"] == "FOLDER/features"
    assert "hydra" not in config
    assert all(type(value) in (str, int, float, bool, list, dict, type(None)) for value in config.values())


def test_combinations_are_every_choice_with_every_other():
    found = combinations(["a=1", "seed=1,2", "model.dropout=0.1,0.2", "b=[1,2]", "c=range(0,2)"])
    assert len(found) == 2 * 2 * 2
    assert found[0] == ["a=1", "seed=1", "++model.dropout=0.1", "b=[1,2]", "c=0"]
    assert found[-1] == ["a=1", "seed=2", "++model.dropout=0.2", "b=[1,2]", "c=1"]
    assert combinations(["root=a & b"]) == [["root='a & b'"]]


def test_what_was_quoted_and_opened_stays_as_it_is():
    [words] = combinations([*WORDS[:1], "root=m\u00e9mes & mine", "model.dropout=0.25"])
    assert compose(words) == compose([*WORDS[:1], "root=m\u00e9mes & mine", "model.dropout=0.25"])


def test_a_text_around_braces_needs_no_quotes():
    config = compose(
        ["model=text_bert_tiny", "data=table", "root=t", "data.images=img/{}.png", "data.values={a: b}"]
    )
    assert (config["data"]["train"]["images"], config["data"]["train"]["values"]) == (
        "img/{}.png",
        {"a": "b"},
    )


def test_a_configuration_is_shown_with_what_is_not_given(capsys):
    tree = yaml.safe_load(as_yaml(WORDS[:1]))
    assert tree["root"] == "???"
    assert tree["features"] == "${root}/features"
    assert yaml.safe_load(as_yaml(WORDS, resolve=True)) == compose(WORDS)
    assert main(["train", *WORDS, "--cfg", "job"]) == 0
    assert capsys.readouterr().out == as_yaml(WORDS)


@pytest.mark.parametrize(
    "words",
    [
        WORDS[:1],
        [*WORDS, "seed=1,2"],
        [*WORDS, "sead=1"],
        [*WORDS, "trainer=null"],
        [*WORDS, "model=none_of_these"],
        [*WORDS, "a=[1"],
        [*WORDS, "name=${nowhere}"],
    ],
)
def test_words_that_cannot_be_are_one_error(words: list[str]):
    with pytest.raises(ConfigError):
        compose(words)


@pytest.mark.parametrize("words", [["a=[1"], ["lr=interval(0,1)"]])
def test_a_sweep_that_cannot_be_is_one_error(words: list[str]):
    with pytest.raises(ConfigError):
        combinations(words)


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError):
        compose(WORDS, folder=tmp_path / "nowhere")


def test_flags_of_hydra_that_mean_nothing_here_are_refused():
    with pytest.raises(SystemExit) as end:
        main(["train", *WORDS, "--info"])
    assert end.value.code == 2


def test_languages_joined_by_commas_are_one_run():
    words = ["model=vlbert_tiny", "data=multi30k", "root=r", "lang=en,de", "image=false"]
    (only,) = combinations(words)
    for given in (words, only, [*words[:3], "lang=[en,de]", "image=false"]):
        train = compose(given)["data"]["train"]
        assert train["image"] is False
        assert train["lang"] in ("en,de", ["en", "de"])
