import errno
import resource
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from diptych.bundle import build, call, load_bundle, save_bundle, save_tensors
from diptych.errors import CheckpointMismatch, ConfigError, FormatError
from diptych.text import write_vocabulary
from diptych.types import FeatureMeta

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_vocabulary(tmp_path / "vocabulary.txt", TOKENS)
    nodes = {
        "model": {"_target_": "diptych.models.text_bert_tiny", "vocab_size": len(TOKENS)},
        "processor": {
            "_target_": "diptych.data.Processor",
            "text": {"_target_": "diptych.text.WordPiece", "vocabulary": str(tmp_path / "vocabulary.txt")},
        },
        "task": {"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"], "threshold": 0.3},
    }
    torch.manual_seed(0)
    model = call(nodes["model"])
    task = call(nodes["task"], model=model)
    save_bundle(
        tmp_path / "bundle",
        model=model,
        task=task,
        nodes=nodes,
        features=FeatureMeta(feature_dim=5, classes=("sun", "boat")),
        metrics={"auroc": 0.75},
        provenance={"seed": 3},
    )
    (tmp_path / "vocabulary.txt").unlink()  # the bundle has its own
    return tmp_path / "bundle"


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
    with pytest.raises(ConfigError, match="exists and is kept"):
        save_bundle(bundle, model=loaded.model, task=loaded.task, nodes={})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "diptych.files.os.system",
        "diptych.data.processor.np.load",
        "subprocess.run",
        "diptych.bundle.call",
    ],
)
def test_a_bundle_cannot_call_foreign_code(bundle: Path, tmp_path: Path, target: str) -> None:
    witness = tmp_path / "witness"
    edit(bundle, "model", {"_target_": target, "_args_": [f"touch {witness}"]})
    with pytest.raises(ConfigError, match="outside"):
        load_bundle(bundle)
    edit(bundle, "model", {"_target_": "diptych.models.text_bert_tiny", "dropout": {"_target_": target}})
    with pytest.raises(ConfigError, match="outside"):
        load_bundle(bundle)
    assert not witness.exists()


def test_trusted_modules_may_be_called() -> None:
    node = {"_target_": "subprocess.list2cmdline", "seq": ["a", "b"]}
    with pytest.raises(ConfigError, match="outside"):
        build(node)
    assert build(node, trust=["subprocess"]) == subprocess.list2cmdline(["a", "b"])


def test_weights_of_another_size_are_refused(bundle: Path) -> None:
    edit(bundle, "model", {"_target_": "diptych.models.text_bert_tiny", "vocab_size": 9})
    with pytest.raises(CheckpointMismatch, match="size mismatch"):
        load_bundle(bundle)


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match=r"w\.safetensors") as caught:
            save_tensors({"a": torch.zeros(100_000)}, tmp_path / "w.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG


def test_damaged_bundles_are_named(bundle: Path, tmp_path: Path) -> None:
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"weights\.safetensors: cannot be read"):
        load_bundle(bundle)
    (bundle / "bundle.yaml").write_text("just: text")
    with pytest.raises(FormatError, match="not a bundle"):
        load_bundle(bundle)
    (bundle / "bundle.yaml").write_text("a: [")
    with pytest.raises(FormatError, match="cannot be read"):
        load_bundle(bundle)
    with pytest.raises(FormatError, match="does not exist"):
        load_bundle(tmp_path / "nowhere")


def test_a_newer_format_is_refused(bundle: Path) -> None:
    edit(bundle, "format", 99)
    with pytest.raises(FormatError, match="format 99"):
        load_bundle(bundle)


def test_an_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'dropuot'\. Did you mean 'dropout'"):
        call({"_target_": "diptych.models.uniter_tiny", "dropuot": 0.5})
    with pytest.raises(ConfigError, match="text_features"):
        call({"_target_": "diptych.models.text_bert_tiny", "text_feature": 5})
    with pytest.raises(ConfigError, match="no_such"):
        call({"_target_": "diptych.models.no_such"})
