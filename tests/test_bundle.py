import errno
import os
import re
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from diptych.bundle import _adopt_files, load_bundle, save_bundle
from diptych.errors import CheckpointMismatch, ConfigError, FormatError
from diptych.recipe.call import call
from diptych.types import FeatureMeta
from diptych.weights import write_weights

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")  # of the fixture `bundle`


def edit(bundle: Path, key: str, value: object) -> None:
    text = yaml.safe_load((bundle / "bundle.yaml").read_text())
    text[key] = value
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(text))


def test_round_trip_keeps_weights_settings_and_files(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    torch.manual_seed(0)
    again = call({"_target_": "diptych.models.text_bert_tiny", "vocab_size": len(TOKENS)})
    for key, value in again.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value)
    assert loaded.task.threshold == 0.3
    assert loaded.processor.text.tokens == TOKENS
    assert loaded.features == FeatureMeta(feature_dim=5, classes=("sun", "boat"))
    assert loaded.metrics == {"auroc": 0.75}
    assert loaded.provenance["seed"] == 3
    assert not loaded.model.training


def test_a_bundle_can_be_moved_and_found_in_its_run(bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "elsewhere"
    run.mkdir()
    bundle.rename(run / "bundle")
    assert load_bundle(run).processor.text.tokens == TOKENS


def test_an_existing_folder_is_kept(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    with pytest.raises(ConfigError, match=r"bundle .*overwrite=true"):
        save_bundle(bundle, model=loaded.model, task=loaded.task, nodes={})


def test_weights_of_another_size_are_refused(bundle: Path) -> None:
    edit(bundle, "model", {"_target_": "diptych.models.text_bert_tiny", "vocab_size": 9})
    with pytest.raises(
        CheckpointMismatch, match=r"Concat: .*text\.text\.words\.weight .*\[7, 48\].*\[9, 48\]"
    ):
        load_bundle(bundle)


def test_damaged_bundles_are_named(bundle: Path, tmp_path: Path) -> None:
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"weights\.safetensors: "):
        load_bundle(bundle)
    (bundle / "bundle.yaml").write_text("just: text")
    with pytest.raises(FormatError, match=r"bundle\.yaml: .*model, processor, task"):
        load_bundle(bundle)
    (bundle / "bundle.yaml").write_text("a: [")
    with pytest.raises(FormatError, match=r"bundle\.yaml: .*line 1, column 5"):
        load_bundle(bundle)
    with pytest.raises(FormatError, match="nowhere"):
        load_bundle(tmp_path / "nowhere")


def test_a_newer_format_is_refused(bundle: Path) -> None:
    edit(bundle, "format", 99)
    with pytest.raises(FormatError, match=r"bundle\.yaml: .* 99, .* 1; "):
        load_bundle(bundle)


def test_only_declared_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("error", "size", "benign", "vocabulary.txt"):
        (tmp_path / name).write_text("\n".join(TOKENS))
    monkeypatch.chdir(tmp_path)
    text = {"_target_": "diptych.text.WordPiece", "vocabulary": "vocabulary.txt"}
    nodes = {
        "model": {"_target_": "diptych.models.text_bert_tiny", "vocab_size": len(TOKENS)},
        "processor": {
            "_target_": "diptych.data.Processor",
            "text": text,
            "missing": "error",
            "box_scale": "size",
        },
        "task": {"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"]},
    }
    model = call(nodes["model"])
    save_bundle(tmp_path / "b", model=model, task=call(nodes["task"], model=model), nodes=nodes)
    assert [file.name for file in (tmp_path / "b" / "files").iterdir()] == ["vocabulary.txt"]
    assert load_bundle(tmp_path / "b").processor.missing == "error"


def test_two_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vocabulary.txt").write_text(folder)
    nodes = {
        name: {"_target_": "diptych.text.WordPiece", "vocabulary": str(tmp_path / folder / "vocabulary.txt")}
        for name, folder in (("a", "one"), ("b", "other"), ("c", "one"))
    }
    adopted = _adopt_files(nodes, tmp_path / "files", {})
    names = [node["vocabulary"].removeprefix("${bundle}/files/") for node in adopted.values()]
    assert [(tmp_path / "files" / name).read_text() for name in names] == ["one", "other", "one"]
    with pytest.raises(FormatError, match=r"nowhere\.txt: "):
        _adopt_files({"a": nodes["a"] | {"vocabulary": "nowhere.txt"}}, tmp_path / "files", {})


def test_shared_values_are_written_without_aliases(bundle: Path, tmp_path: Path) -> None:
    loaded = load_bundle(bundle)
    text = yaml.safe_load((bundle / "bundle.yaml").read_text())
    nodes = {name: text[name] for name in ("model", "task")} | {
        "processor": {"_target_": "diptych.data.Processor"}
    }
    shared = [1, 2]
    about = {"a": shared, "b": shared}
    save_bundle(tmp_path / "b", model=loaded.model, task=loaded.task, nodes=nodes, provenance=about)
    assert load_bundle(tmp_path / "b").provenance["b"] == shared


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_neither_read_nor_written(
    bundle: Path, tmp_path: Path, value: float
) -> None:
    loaded = load_bundle(bundle)
    change(bundle, lambda weights: next(iter(weights.values())).view(-1)[:1].fill_(value))
    with pytest.raises(CheckpointMismatch, match=r"weights\.safetensors: model\..* NaN "):
        load_bundle(bundle)
    next(loaded.model.parameters()).data.view(-1)[0] = value
    with pytest.raises(CheckpointMismatch, match=r"^Concat: model\..* NaN "):
        save_bundle(tmp_path / "b", model=loaded.model, task=loaded.task, nodes={})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_number_type_are_refused(bundle: Path, kind: torch.dtype) -> None:
    change(bundle, lambda weights: weights.update({name: one.to(kind) for name, one in weights.items()}))
    with pytest.raises(FormatError, match=r"weights\.safetensors: "):
        load_bundle(bundle)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_are_read(bundle: Path, kind: torch.dtype) -> None:
    change(bundle, lambda weights: weights.update({name: one.to(kind) for name, one in weights.items()}))
    assert {one.dtype for one in load_bundle(bundle).model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 0),
        struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
        b"",
        b"\x80\x04.",
        *(
            struct.pack("<Q", len(text)) + text
            for text in (
                b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}',
                b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
                b'{"x":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}',
                b'{"x":{"dtype":"F32","shape":[9223372036854775808,9223372036854775808],"data_offsets":[0,4]}}',
                b'{"../../x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
            )
        ),
    ],
)
def test_damaged_headers_of_weights_are_named(bundle: Path, head: bytes) -> None:
    (bundle / "weights.safetensors").write_bytes(head)
    with pytest.raises((FormatError, CheckpointMismatch), match=re.escape(str(bundle))):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["bundle.yaml", "weights.safetensors", "files/vocabulary.txt"])
def test_a_pipe_in_a_bundle_is_refused_at_once(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(FormatError):
        load_bundle(bundle)


def change(bundle: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(bundle / "weights.safetensors")
    how(weights)
    save_file(weights, bundle / "weights.safetensors")


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match=r"w\.safetensors") as caught:
            write_weights({"a": torch.zeros(100_000)}, tmp_path / "w.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
