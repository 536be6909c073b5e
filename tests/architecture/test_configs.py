import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_object
from omegaconf import OmegaConf

import diptych
from diptych.recipe import compose as compose_run
from diptych.recipe.call import call
from diptych.study.settings import read_study
from diptych.tasks import Trainable
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

CONF = Path(diptych.__file__).parent / "conf"


def names(group: str) -> list[str]:
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("diptych.conf", version_base="1.3"):
        config = compose("train", overrides=["root=data", *overrides])
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return plain


def nodes(tree: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node that is a call."""
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield path, dict(tree)
        for key, value in tree.items():
            yield from nodes(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from nodes(value, f"{path}.{number}")


def check_calls(config: dict[str, Any]) -> None:
    """Every key of a node is a parameter of what the node calls."""
    for path, node in nodes(config):
        target = node.pop("_target_")
        assert target.startswith("diptych."), f"{path}: bundles accept only our own callables, not {target}"
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        signature = inspect.signature(get_object(target))
        try:
            signature.bind_partial(**arguments)
        except TypeError as error:
            pytest.fail(f"{path}: {target}: {error}")


@pytest.mark.parametrize("name", names("experiment"))
def test_experiment_composes(name: str) -> None:
    config = composed(f"experiment={name}")
    check_calls(config)
    assert config["name"] == Path(name).name


@pytest.mark.parametrize("name", names("model"))
def test_model_composes_with_the_default_data(name: str) -> None:
    config = composed(f"model={name}")
    check_calls(config)
    assert {"model", "processor", "task", "optim", "schedule", "trainer", "data"} <= config.keys()


@pytest.mark.parametrize("name", names("data"))
def test_data_composes(name: str) -> None:
    config = composed(f"model={names('model')[0]}", f"data={name}")
    check_calls(config)
    train, validate = ({**config["data"][role], "split": ""} for role in ("train", "validate"))
    assert train == validate  # but for the split


OPTIONS = [f"{g}={n}" for g in ("optim", "schedule", "averaging", "trainer", "debug") for n in names(g)]


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes(option: str) -> None:
    check_calls(composed(f"model={names('model')[0]}", option))


@pytest.mark.parametrize("name", names("experiment"))
def test_experiment_names_its_own_command(name: str) -> None:
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"diptych train experiment={name} " in text.partition("defaults:")[0]


GIVEN = {"labels": ["no", "yes"], "answers": ["red", "two"], "cases": 3}  # what only the data say


@pytest.mark.parametrize("name", names("task"))
def test_task_composes_and_is_built(name: str, tmp_path: Path) -> None:
    needed = [f"task.{key}={value}".replace(" ", "") for key, value in GIVEN.items() if _asks(name, key)]
    dual = name.startswith("contrast") or name in ("hate_clipper", "meme_clip", "rgcl")
    own = "clip_tiny" if dual else "concat_bert_tiny" if name == "fix_match" else "uniter_tiny"
    config = composed(f"model={own}", "data=memes_pretrain", f"task={name}", *needed)  # without labels
    check_calls(config)
    sizes = {"feature_dim": 4} if own == "uniter_tiny" else {}
    model = call(config["model"], vocab_size=30, **sizes)
    for node in config["task"].get("objectives", {}).values():
        _fill(node)
    if config["task"].get("text") == "auto":
        write_vocabulary(tmp_path / "vocabulary.txt", SPECIAL_TOKENS)
        node = config["processor"]["text"]
        config["task"] |= {"text": {**node, "vocabulary": str(tmp_path / "vocabulary.txt")}, "beam": 2}
        config["task"] |= {key: 1 for key in ("layers", "heads", "hidden") if key in config["task"]}
        config["task"] |= {"warm_start": False} if "warm_start" in config["task"] else {}
    assert isinstance(call(config["task"], model=model), Trainable)


def _asks(name: str, key: str) -> bool:
    text = (CONF / "task" / f"{name}.yaml").read_text(encoding="utf-8")
    return f"\n{key}: ???" in text or f"\n{key}: auto" in text


def _fill(node: dict[str, Any]) -> None:
    """What a run fills in from its vocabulary and its features."""
    kind = node["_target_"].rpartition(".")[2]
    if kind == "MaskedText":
        words = node.setdefault("masking", {"_target_": "diptych.tasks.objectives.WordMasking"})
        words |= {"mask_id": 4, "special": [0, 2, 3, 4], "continuations": []}
    for inner in node.get("predict", {}).values():
        if inner["_target_"].endswith(("RegionLabels", "RegionProbabilities")):
            inner["classes"] = 3
        elif "tied" not in inner:
            inner["feature_dim"] = 4


@pytest.mark.parametrize("name", names("study"))
def test_every_family_of_a_study_composes(name: str) -> None:
    study = read_study(name, lambda one: CONF / "study" / f"{one}.yaml")
    for family in study.families:
        member = family.members[0]
        for quirks in ((), *family.quirks.values()):
            check_calls(compose_words([f"experiment={member.experiment}", *member.overrides, *quirks]))
        if family.pretrain is not None:
            words = [f"experiment={family.pretrain.experiment}", *family.pretrain.overrides]
            check_calls(compose_words(words))
    for link in study.links:
        check_calls(compose_words([f"experiment={link.experiment}", *link.overrides]))


def compose_words(words: list[str]) -> dict[str, Any]:
    return compose_run(["root=data", "out=run", *words])
