"""Files of others become bundles, and bundles files of others again."""

import json
import os
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from diptych import models
from diptych.bundle import load_bundle, save_bundle
from diptych.convert import (
    FAMILIES,
    convert_checkpoint,
    inspect_checkpoint,
    read_source,
    restore,
    restore_checkpoint,
)
from diptych.data import Sources, require_sources
from diptych.errors import CheckpointMismatch, ConfigError, FormatError
from diptych.tasks import Classify
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

FAMILY = {family.name: family for family in FAMILIES}
WORDS, HEADS = 40, {"heads": 4}
STREAMS = dict.fromkeys(("text", "vision", "bridge"), HEADS)
SIZES = {"vocab_size": WORDS, "max_positions": 16, "feature_dim": 16}
TINY = {
    "ernievil": (models.ernievil_tiny, "", STREAMS),
    "lxmert": (models.lxmert_tiny, "module.bert.", HEADS),
    "oscar": (models.oscar_tiny, "bert.", HEADS),
    "uniter": (models.uniter_tiny, "uniter.", HEADS),
    "vilbert": (models.vilbert_tiny, "module.bert.", STREAMS),
    "visualbert": (models.visualbert_tiny, "model.bert.", HEADS),
    "vlbert": (models.vlbert_tiny, "module.vlbert.", HEADS),
}


def tiny(name, **sizes):
    """A tiny model, its weights under the names of the original, and the numbers that shapes do not say."""
    build, prefix, overrides = TINY[name]
    torch.manual_seed(7)
    model = build(**SIZES, **sizes)
    family = FAMILY[name]
    weights = restore(model.state_dict(), family.table)
    outer = "module." if prefix.startswith("module.") else ""
    named = {
        family.backbone.original(key, prefix=prefix, head_prefix=outer, head=False): one.contiguous()
        for key, one in weights.items()
    }
    if outer:
        named = {key if key.startswith(outer) else outer + key: one for key, one in named.items()}
    return model, named, {"model": overrides}


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "words.txt"
    write_vocabulary(
        path, [*SPECIAL_TOKENS, *(f"w{number}" for number in range(WORDS - len(SPECIAL_TOKENS)))]
    )
    return path


@pytest.fixture
def uniter(tmp_path):
    """A UNITER's file, its weights, and the number that shapes do not say."""
    _, weights, overrides = tiny("uniter")
    torch.save(weights, tmp_path / "u.pt")
    return tmp_path / "u.pt", weights, overrides


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", TINY)
def test_there_and_back_are_the_same_bytes(name, tmp_path, vocabulary):
    model, weights, overrides = tiny(name)
    torch.save(weights, tmp_path / "w.pth")
    report = convert_checkpoint(
        tmp_path / "w.pth", tmp_path / "bundle", vocabulary=vocabulary, overrides=overrides
    )
    assert report.family == name
    bundle = load_bundle(tmp_path / "bundle")
    assert same(bundle.model.state_dict(), model.state_dict())
    assert bundle.features.feature_dim == 16
    assert bundle.processor.text.vocab_size == WORDS
    assert restore_checkpoint(tmp_path / "bundle", tmp_path / "back.safetensors") == len(weights)
    plain = {key.removeprefix("module."): one for key, one in weights.items()}
    assert same(load_file(tmp_path / "back.safetensors"), plain)


def test_bert_becomes_a_model_of_texts(tmp_path, vocabulary, bert_weights):
    bert_weights["embeddings.word_embeddings.weight"] = torch.randn(WORDS, 48)
    save_file(bert_weights, tmp_path / "w.safetensors")
    report = convert_checkpoint(
        tmp_path / "w.safetensors",
        tmp_path / "bundle",
        vocabulary=vocabulary,
        overrides={"model": {"text": HEADS}},
    )
    assert report.new == {
        "the tower's own layer on top of BERT": ["text.project.weight", "text.project.bias"],
        "the file has no head that diptych has a task for": ["task.head"],
    }
    restore_checkpoint(tmp_path / "bundle", tmp_path / "back.safetensors")
    assert same(load_file(tmp_path / "back.safetensors"), bert_weights)


def test_a_fine_tuned_head_becomes_the_task(tmp_path, uniter, vocabulary):
    path, weights, overrides = uniter
    head = {"linear.weight": torch.randn(2, 48), "linear.bias": torch.randn(2)}
    torch.save(weights | head, path)
    report = convert_checkpoint(path, tmp_path / "bundle", vocabulary=vocabulary, overrides=overrides)
    assert report.head == ("linear", "diptych.tasks.Classify")
    assert report.new == report.dropped == {}
    task = load_bundle(tmp_path / "bundle").task
    assert torch.equal(task.head.layers[0].weight, head["linear.weight"])
    assert task.labels == ("benign", "hateful")
    restore_checkpoint(tmp_path / "bundle", tmp_path / "back.safetensors")
    assert same(load_file(tmp_path / "back.safetensors"), weights | head)


def test_a_head_that_stays_new_is_the_same_every_time(tmp_path, uniter, vocabulary):
    path, _, overrides = uniter
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)
        report = convert_checkpoint(path, tmp_path / name, vocabulary=vocabulary, overrides=overrides)
        assert report.new == {"the file has no head that diptych has a task for": ["task.head"]}
    one, two = (tmp_path / name / "weights.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_what_training_leaves_beside_the_weights_is_left_out(tmp_path, uniter, vocabulary):
    path, weights, overrides = uniter
    averaged = {f"module.{name}": one for name, one in weights.items()}
    content = {"state_dict": averaged | {"n_averaged": torch.tensor(3)}, "optimizer": {"lr": 1.0}, "epoch": 4}
    torch.save(content, path)
    report = convert_checkpoint(path, tmp_path / "bundle", vocabulary=vocabulary, overrides=overrides)
    assert report.dropped == {
        "state of the training, beside the weights": ["optimizer", "epoch"],
        "the counter of torch's weight averaging": ["n_averaged"],
    }


def test_a_folder_of_hugging_face_says_heads_and_vocabulary(tmp_path, uniter, vocabulary):
    _, weights, _ = uniter
    folder = tmp_path / "hub"
    folder.mkdir()
    names = list(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, own in shards.items():
        save_file({name: weights[name] for name in own}, folder / shard)
    index = {"weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 6}))
    shutil.copy(vocabulary, folder / "vocab.txt")
    report = convert_checkpoint(folder, tmp_path / "bundle")
    assert report.model["heads"] == 6
    assert "2 shards" in report.kind
    (folder / "b.safetensors").unlink()
    with pytest.raises(FormatError, match=r"index\.json: .*'b\.safetensors'"):
        convert_checkpoint(folder, tmp_path / "other")


def variable(tensor):
    """A Paddle variable of float32."""
    sizes = b"".join(
        bytes([0x10, *([size] if size < 128 else [size & 0x7F | 0x80, size >> 7])]) for size in tensor.shape
    )
    head = struct.pack("<IQIi", 0, 0, 0, 2 + len(sizes)) + bytes([0x08, 5]) + sizes
    return head + tensor.contiguous().numpy().tobytes()


def test_a_folder_of_paddle_parameters(tmp_path, vocabulary):
    model, weights, overrides = tiny("ernievil")
    params = tmp_path / "archive" / "params"
    params.mkdir(parents=True)
    shutil.copy(vocabulary, params.parent / "vocab.txt")
    junk = {
        "word_embedding_moment1_0": torch.ones(2),
        "hm_fc.w_0": torch.ones(48, 1),
        "hm_fc.b_0": torch.ones(1),
    }
    for name, tensor in (weights | junk).items():
        (params / name).write_bytes(variable(tensor))
    report = convert_checkpoint(params.parent, tmp_path / "bundle", overrides=overrides)
    assert report.head == ("hm_fc", "diptych.tasks.Classify")
    assert report.dropped == {"state of the optimizer": ["word_embedding_moment1_0"]}
    assert same(load_bundle(tmp_path / "bundle").model.state_dict(), model.state_dict())
    (params / "encoder_layer_1_ffn_fc_1.w_0").unlink()
    with pytest.raises(
        CheckpointMismatch, match=r"1 unfilled: encoder\.text_layers\.1\.feedforward\.contract"
    ):
        convert_checkpoint(params.parent, tmp_path / "other", overrides=overrides)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_bad_files_leave_nothing_behind(tmp_path, uniter, vocabulary):
    path, weights, _ = uniter
    whole = path.read_bytes()
    files = {
        "half.pt": (whole[: len(whole) // 2], ""),
        "page.pt": (b"<html>404</html>", "<html>404"),
        "empty.pt": (b"", ""),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=f"{name}: .*{message}"):
            convert_checkpoint(tmp_path / name, tmp_path / "out", vocabulary=vocabulary)
    torch.save(weights | {"bomb": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pt")
    for use in (convert_checkpoint, lambda source, *_, **__: inspect_checkpoint(source)):
        with pytest.raises(FormatError, match=r"bomb\.pt: .*mkdir"):
            use(tmp_path / "bomb.pt", tmp_path / "out", vocabulary=vocabulary)
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_numbers_leave_nothing_behind(tmp_path, uniter, vocabulary):
    _, weights, overrides = uniter
    (name,) = (one for one in weights if one.endswith("encoder.layer.0.intermediate.dense.bias"))
    torch.save(weights | {name: torch.full_like(weights[name], torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(CheckpointMismatch, match=rf"nan\.pt: 1 .*NaN.*: .*{name[-20:]}"):
        convert_checkpoint(tmp_path / "nan.pt", tmp_path / "out", vocabulary=vocabulary, overrides=overrides)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../a.safetensors"}, r".*'\.\./a\.safetensors'"),
        ({"a": "/etc/passwd"}, ".*'/etc/passwd'"),
        ({"a": "pipe"}, ".*'pipe'"),
        (
            {"a": "a.safetensors", "b": "a.safetensors"},
            r".*\b1 tensors.*'b'",
        ),
        ({"a": 5}, r"weight_map\.a: "),
        ([], "weight_map: "),
        (None, "weight_map: "),
    ],
)
def test_an_index_names_shards_of_its_folder(tmp_path, weight_map, message):
    folder = tmp_path / "hub"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    for place in (folder, tmp_path):
        save_file({"a": torch.ones(1)}, place / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FormatError, match=rf"index\.json: {message}"):
        read_source(folder)


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"num_attention_heads": "x"}', '{"t_biattention_id": 3}', "{" * 999]
)
def test_a_configuration_is_named_with_its_key(tmp_path, text):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FormatError, match=r"config\.json: "):
        read_source(tmp_path)


def test_a_vocabulary_must_be_there_and_fit(tmp_path, uniter):
    path, _, overrides = uniter
    with pytest.raises(ConfigError, match=r"vocabulary=FILE.*40 tokens"):
        convert_checkpoint(path, tmp_path / "out", overrides=overrides)
    for count in (WORDS + 1, 300):
        write_vocabulary(tmp_path / "v.txt", [*SPECIAL_TOKENS, *map(str, range(count - len(SPECIAL_TOKENS)))])
        with pytest.raises(ConfigError, match=rf"v\.txt: {count} tokens .*\b40\b"):
            convert_checkpoint(path, tmp_path / "out", vocabulary=tmp_path / "v.txt", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_shows_its_case(tmp_path, uniter):
    path, _, overrides = uniter
    words = [f"Word{number}" for number in range(WORDS - len(SPECIAL_TOKENS))]
    write_vocabulary(tmp_path / "v.txt", [*SPECIAL_TOKENS, *words])
    report = convert_checkpoint(path, tmp_path / "out", vocabulary=tmp_path / "v.txt", overrides=overrides)
    assert load_bundle(tmp_path / "out").processor.text.lowercase is False
    assert report.settings["processor.text.lowercase"] == (False, "the file: the vocabulary has 'Word0'")


def test_settings_are_checked(tmp_path, uniter, vocabulary):
    path, _, overrides = uniter
    with pytest.raises(ConfigError, match=r"model\.heads=NUMBER"):
        convert_checkpoint(path, tmp_path / "out", vocabulary=vocabulary)
    with pytest.raises(ConfigError, match="'dept'"):
        convert_checkpoint(
            path, tmp_path / "out", vocabulary=vocabulary, overrides={"model": HEADS | {"dept": 1}}
        )
    with pytest.raises(ConfigError, match="'modl'"):
        convert_checkpoint(path, tmp_path / "out", vocabulary=vocabulary, overrides={"modl": {}})
    wide = {"model": HEADS | {"feature_dim": 20}}
    with pytest.raises(CheckpointMismatch, match=r"of the wrong shape"):
        convert_checkpoint(path, tmp_path / "out", vocabulary=vocabulary, overrides=wide)
    with pytest.raises(CheckpointMismatch, match=r"UNITER .*lxmert"):
        convert_checkpoint(
            path, tmp_path / "out", vocabulary=vocabulary, family="lxmert", overrides=overrides
        )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"/out\b"):
        convert_checkpoint(path, tmp_path / "out", vocabulary=vocabulary, overrides=overrides)


@pytest.mark.parametrize("form", ["dotted", "nested", "both"])
def test_settings_may_be_dotted(tmp_path, uniter, vocabulary, form):
    path, _, overrides = uniter
    dotted = {f"model.{name}": value for name, value in overrides["model"].items()}
    wanted = {"dotted": dotted, "nested": overrides, "both": {**overrides, "processor.max_tokens": 64}}[form]
    convert_checkpoint(path, tmp_path / "out", vocabulary=vocabulary, overrides=wanted)
    assert inspect_checkpoint(path, overrides=wanted).model["heads"] == overrides["model"]["heads"]
    assert load_bundle(tmp_path / "out").processor.max_tokens == (
        64 if form == "both" else SIZES["max_positions"]
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": 5}, r"model is 5;.*model\.KEY"),
        ({"heads": 4}, r"heads is 4;.*heads\.KEY"),
        ({"modl.heads": 4}, "'modl'"),
        ({"model.heads": 0}, "heads is 0;.* 1"),
        ({"model.heads": -4}, "heads is -4"),
        ({"model.heads": 1.5}, r"heads is 1\.5;.* int"),
        ({"model.heads": "4"}, "heads is '4';.* int"),
        ({"model.heads": 5}, r"\b48\b.*\b5\b"),
        ({"model.heads": 4, "model._target_": "os.system"}, r"os\.system"),
        ({"model.heads": "${oc.env:HOME}"}, r"oc\.env:HOME"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path, uniter, vocabulary, overrides, message):
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint(uniter[0], tmp_path / "out", vocabulary=vocabulary, overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_folders_of_this_machine_do_not_travel(tmp_path, uniter, vocabulary):
    path, _, overrides = uniter
    convert_checkpoint(path, tmp_path / "out", vocabulary=vocabulary, overrides=overrides)
    for name in ("bundle.yaml", "README.md"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


def test_a_model_that_nobody_publishes_has_no_way_back(tmp_path):
    model = models.image_resnet_tiny()
    nodes = {
        "model": {"_target_": "diptych.models.image_resnet_tiny"},
        "processor": {"_target_": "diptych.data.Processor", "image_size": 32},
        "task": {"_target_": "diptych.tasks.Classify", "labels": ["no", "yes"]},
    }
    save_bundle(tmp_path / "pixels", model=model, task=Classify(model, labels=("no", "yes")), nodes=nodes)
    with pytest.raises(CheckpointMismatch, match=r"image\.resnet"):
        restore_checkpoint(tmp_path / "pixels", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_inspection_says_what_a_file_holds(tmp_path, uniter):
    path, weights, overrides = uniter
    torch.save(weights | {"linear.weight": torch.zeros(2, 48), "linear.bias": torch.zeros(2)}, path)
    report = inspect_checkpoint(path)
    assert report.family == "uniter"
    assert report.head is None
    assert "model.heads" in report.reason
    assert report.tensors == len(weights) + 2
    assert report.dtypes == {"float32": report.tensors}
    assert report.groups["linear"] == (2, 98)
    report = inspect_checkpoint(path, overrides=overrides)
    assert report.head == ("linear", "diptych.tasks.Classify")
    assert report.settings["model.heads"] == (4, "set by the user")
    assert report.settings["model.layers"][1] == "the file: shapes of its tensors"
    assert report.settings["processor.max_tokens"][0] == SIZES["max_positions"]
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "other.pt")
    other = inspect_checkpoint(tmp_path / "other.pt")
    assert (other.family, "conv.weight" in other.reason) == (None, True)


def test_the_card_tells_what_was_left_out_and_how_equal_it_is(tmp_path, uniter, vocabulary):
    path, weights, overrides = uniter
    torch.save(weights | {"cls.predictions.bias": torch.zeros(WORDS)}, path)
    convert_checkpoint(path, tmp_path / "bundle", vocabulary=vocabulary, overrides=overrides)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "| the head of masked words: pre-training | 1 | `cls.predictions.bias` |" in card
    assert "| `uniter-vqa` |" in card
    assert (
        "| `processor.text.lowercase` | `True` | the file: no token of the vocabulary has a capital |" in card
    )
    assert "| `model.heads` | `4` | set by the user |" in card
    assert "| the file has no head that diptych has a task for | 1 | `task.head` |" in card


def test_a_modality_that_a_model_does_not_take_is_refused(tmp_path, uniter, vocabulary):
    path, _, overrides = uniter
    pixels = overrides | {"processor": {"image_size": 64}}
    convert_checkpoint(path, tmp_path / "bundle", vocabulary=vocabulary, overrides=pixels)
    bundle = load_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"\['pixels'\]"):
        require_sources(bundle.model.needs, bundle.processor, Sources())
