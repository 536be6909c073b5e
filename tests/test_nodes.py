"""Attempts to make a bundle run code, read other files or spend memory."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

import diptych.models
from diptych.bundle import load_bundle
from diptych.data import DetectorTransform
from diptych.errors import CheckpointMismatch, ConfigError, DiptychError
from diptych.nodes import allowed, build, check_arguments, parameters
from diptych.tasks import Classify

CONF = Path(diptych.models.__file__).parents[1] / "conf"


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(one for key, value in items for one in places(value, (*path, key)))]


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


def edit(bundle: Path, path: tuple[Any, ...], value: Any) -> None:
    tree = yaml.safe_load((bundle / "bundle.yaml").read_text())
    put(tree, path, value)
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(tree))


def refusal(bundle: Path) -> str:
    try:
        load_bundle(bundle)
    except DiptychError as error:
        return str(error)
    return ""


PLACES = [
    ("model",), ("model", "vocab_size"), ("model", "_target_"), ("model", "extra"),
    ("processor",), ("processor", "text"), ("processor", "max_tokens"), ("processor", "text", "vocabulary"),
    ("processor", "text", "lowercase"), ("processor", "missing"),
    ("task",), ("task", "labels"), ("task", "labels", 0), ("task", "head"), ("task", "head", "layers"),
    ("features",), ("features", "classes", 0), ("metrics", "auroc"), ("provenance", "seed"), ("more",),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_nothing_is_called_or_filled_in_anywhere(
    bundle: Path, tmp_path: Path, place: tuple[Any, ...]
) -> None:
    witness = tmp_path / "witness"
    attempts = [
        "${oc.env:HOME}",
        f"${{oc.create:{{_target_:pathlib.Path.touch,_args_:['{witness}']}}}}",
        f"${{bundle}}/files/${{oc.create:{{_target_:torch.load,f:'{witness}',weights_only:false}}}}",
        "${bundle}${oc.env:HOME}",
        "${..seed}",
        "${",
        {"_target_": "pathlib.Path.touch", "_args_": [str(witness)]},
        {"_target_": "diptych.text.write_vocabulary", "path": str(witness), "tokens": ["x"]},
        {"_target_": "diptych.text.train_fasttext", "texts": ["a"], "out": str(witness)},
        {"_target_": "diptych.files.atomic_file", "path": str(witness)},
        {"_target_": "torch.load", "f": str(witness), "weights_only": False},
    ]
    before = (bundle / "bundle.yaml").read_bytes()
    for attempt in attempts:
        edit(bundle, place, attempt)
        message = refusal(bundle)
        plain = place[0] in ("provenance", "more") and isinstance(attempt, dict)  # nodes mean nothing there
        assert "bundle.yaml" in message or plain, (attempt, message)
        assert not witness.exists()
        (bundle / "bundle.yaml").write_bytes(before)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "diptych.files.os.system",
        "diptych.data.processor.np.load",
        "diptych.bundle.call",
        "diptych.nodes.build",
        "diptych.text.write_vocabulary",
        "diptych.text.tokenizer.write_vocabulary",
        "diptych.text.train_fasttext",
        "diptych.text.learn_vocabulary",
        "diptych.images.open_image",
        "diptych.data.read_boxes",
        "diptych.data.open_regions",
        "diptych.data.DataModule",
        "diptych.nn.checkpointed",
        "diptych.nn.init.torch.load",
        "diptych.models.concat.torch.hub.load",
        "diptych.nn",
        "diptych.__main__",
        "",
        "...",
        5,
        None,
        ["os.system"],
    ],
)
@pytest.mark.parametrize(
    "place", [("model",), ("task", "head"), ("task", "labels", 0), ("processor", "text")]
)
def test_only_listed_callables_are_called(bundle: Path, target: object, place: tuple[Any, ...]) -> None:
    edit(bundle, place, {"_target_": target})
    loaded = set(sys.modules)
    with pytest.raises(ConfigError, match=rf"bundle\.yaml: {place[0]}.*: _target_ .*trust="):
        load_bundle(bundle)
    assert set(sys.modules) == loaded  # a name alone imports nothing


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_convert_", "_recursive_", "__class__", "_target"])
@pytest.mark.parametrize(
    "place", [("model",), ("processor",), ("task",), ("processor", "text"), ("task", "head")]
)
@pytest.mark.parametrize("value", [True, "all", []], ids=str)
def test_special_keys_are_refused(bundle: Path, key: str, place: tuple[Any, ...], value: object) -> None:
    if (key, place[-1], value) == ("_partial_", "head", True):
        load_bundle(bundle)  # a task calls its head
        return
    edit(bundle, (*place, key), value)
    with pytest.raises(ConfigError, match=rf"bundle\.yaml: {'.'.join(place)}: {key} "):
        load_bundle(bundle)


def test_a_task_does_not_bring_its_own_model(bundle: Path) -> None:
    edit(bundle, ("task", "model"), {"_target_": "diptych.models.uniter_tiny"})
    with pytest.raises(ConfigError, match=r"bundle\.yaml: task: model "):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("place", "node"),
    [
        (("model",), {"_target_": "diptych.text.WordPiece", "vocabulary": "${bundle}/files/vocabulary.txt"}),
        (("model",), {"_target_": "diptych.nn.Sizes", "dim": 3, "heads": 1}),
        (("task",), {"_target_": "diptych.nn.Pooled"}),
        (("processor",), {"_target_": "diptych.data.DetectorTransform"}),
        (("processor", "text"), {"_target_": "diptych.data.DetectorTransform"}),
        (("task", "head"), {"_target_": "diptych.data.Processor", "_partial_": True}),
    ],
)  # fmt: skip
def test_a_listed_callable_in_the_wrong_place_is_refused(
    bundle: Path, place: tuple[Any, ...], node: dict[str, Any]
) -> None:
    edit(bundle, place, node)
    with pytest.raises(DiptychError, match=r"bundle\.yaml"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "name",
    ["${bundle}/../secret.txt", "${bundle}/files/../../secret.txt", "${bundle}", "${bundle}/",
     "${bundle}/files", "${bundle}//etc/hostname", "/etc/hostname", "secret.txt", "files/vocabulary.txt",
     "~/.bashrc", "${bundle}/files/link.txt", "${bundle}/elsewhere/secret.txt", "${bundle}/files/\0",
     "${bundle}/files/none.txt", "${bundle}/${bundle}/files/vocabulary.txt", 5, None, ["a"]],
)  # fmt: skip
def test_files_lie_in_the_bundle(bundle: Path, tmp_path: Path, name: object) -> None:
    (tmp_path / "secret.txt").write_text((bundle / "files" / "vocabulary.txt").read_text())
    (bundle / "files" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (bundle / "elsewhere").symlink_to(tmp_path)
    edit(bundle, ("processor", "text", "vocabulary"), name)
    with pytest.raises(DiptychError):
        load_bundle(bundle)


def test_a_link_within_the_bundle_is_followed(bundle: Path) -> None:
    (bundle / "files" / "link.txt").symlink_to("vocabulary.txt")
    edit(bundle, ("processor", "text", "vocabulary"), "${bundle}/files/link.txt")
    assert load_bundle(bundle).processor.text


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "vocab_size"), 10**12),
        (("model", "vocab_size"), 10**30),
        (("model", "vocab_size"), -1),
        (("model", "vocab_size"), 0),
        (("model", "vocab_size"), 7.0),
        (("model", "vocab_size"), "7"),
        (("model", "text_features"), 2**62),
        (("model",), {"_target_": "diptych.models.uniter_base", "layers": 10**9}),
        (("model",), {"_target_": "diptych.models.uniter_base", "dim": 10**7, "heads": 1}),
        (("model",), {"_target_": "diptych.models.lxmert_tiny", "cross_layers": 10**9}),
        (("model",), {"_target_": "diptych.models.vilbert_tiny", "meetings": [[10**9, 10**9]]}),
        (("model",), {"_target_": "diptych.models.uniter_tiny", "heads": -4}),
        (("task", "head"), {"_target_": "diptych.nn.ClassifierHead", "layers": 2, "width": 10**12}),
        (("task", "head", "classes"), 10**9),
        (("task", "pairs"), 10**12),
        (("task", "class_weights"), [1, float("nan")]),
        (("task", "labels"), "hateful"),
        (("processor", "image_size"), 10**9),
        (("processor", "max_tokens"), "128"),
    ],
    ids=str,
)  # fmt: skip
def test_sizes_and_types_are_checked_before_memory_is_asked_for(
    bundle: Path, place: tuple[Any, ...], value: object
) -> None:
    edit(bundle, place, value)
    with pytest.raises((ConfigError, CheckpointMismatch)):
        load_bundle(bundle)


def test_every_configuration_can_become_a_bundle() -> None:
    """What the package's own models, tasks and processors call is on the list."""
    called: set[str] = set()
    for group in ("model", "task", "processor", "experiment"):
        for file in (CONF / group).rglob("*.yaml"):
            tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            tree = (
                tree
                if group != "experiment"
                else {key: tree.get(key) for key in ("model", "task", "processor")}
            )
            called |= {_at(tree, path) for path in places(tree) if path and path[-1] == "_target_"}
    assert called
    assert called <= allowed().keys()


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def test_what_is_listed_builds_and_does_nothing_else() -> None:
    for name, one in allowed().items():
        made = one if inspect.isclass(one) else inspect.signature(one).return_annotation
        assert inspect.isclass(made), name
        if name.startswith("diptych.models."):
            assert issubclass(made, nn.Module), name


def test_trusted_modules_may_be_called_with_what_they_define() -> None:
    import subprocess

    node = {"_target_": "subprocess.list2cmdline", "seq": ["a", "b"]}
    with pytest.raises(ConfigError, match=r"'subprocess\.list2cmdline'.*trust="):
        build(node)
    assert build(node, trust=["subprocess"]) == subprocess.list2cmdline(["a", "b"])
    with pytest.raises(
        ConfigError, match=r"'subprocess\.os\.system'.*trust="
    ):  # reachable there, defined elsewhere
        build({"_target_": "subprocess.os.system", "command": "true"}, trust=["subprocess"])
    with pytest.raises(ConfigError, match=r"'subprocess\.none'.*'none'"):
        build({"_target_": "subprocess.none"}, trust=["subprocess"])


def test_unknown_names_and_wrong_types_of_arguments() -> None:
    with pytest.raises(ConfigError, match=r"^here .*'labelz'\. .* 'labels'\?"):
        check_arguments(Classify, {"labelz": []}, where="here")
    with pytest.raises(ConfigError, match=r"^here: pairs .*'2'; .* int\."):
        check_arguments(Classify, {"pairs": "2"}, where="here")
    assert {"layers", "heads"} <= set(parameters(diptych.models.uniter_tiny))


def test_bundles_of_version_0_1_name_the_transform_as_it_was_called() -> None:
    built = build({"_target_": "diptych.data.Prepare", "least": 20, "most": 40})
    assert built == DetectorTransform(least=20, most=40)
