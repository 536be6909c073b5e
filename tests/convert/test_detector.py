import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from diptych.convert.detector import DETECTOR, fill_detector, sizes_of
from diptych.convert.load import read_weights
from diptych.convert.rules import restore
from diptych.detect import FasterRcnn
from diptych.errors import CheckpointMismatch, FormatError


def small(attributes=3):
    sizes = {"blocks": (1, 2, 1, 1), "stem": 8, "width": 4, "rpn_hidden": 8, "classes": 5}
    return FasterRcnn(attributes=attributes, **sizes)


@pytest.fixture
def published():
    """A detector and its weights under the names of the original."""
    torch.manual_seed(0)
    detector = small()
    weights = restore(detector.state_dict(), DETECTOR)
    weights["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(12, 4)
    return detector, weights


def uncounted(weights):
    return {name: one for name, one in weights.items() if not name.endswith("num_batches_tracked")}


def write_pickle(path, weights, *, protocol=2, **more):
    content = {"model": {name: one.numpy() for name, one in uncounted(weights).items()}, **more}
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def load(detector, path):
    fill_detector(detector, read_weights(path), where=path)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_released_pickles(tmp_path, published, protocol):
    detector, weights = published
    write_pickle(tmp_path / "d.pkl", weights, protocol=protocol, __author__="Caffe", matching_heuristics=True)
    other = small()
    load(other, tmp_path / "d.pkl")
    assert same(detector, other)


def test_hugging_face_and_safetensors(tmp_path, published):
    detector, weights = published
    torch.save(OrderedDict(weights), tmp_path / "pytorch_model.bin")
    save_file(uncounted(weights), tmp_path / "d.safetensors")
    assert any(name.endswith("num_batches_tracked") for name in weights)
    for name in ("pytorch_model.bin", "d.safetensors"):
        other = small()
        load(other, tmp_path / name)
        assert same(detector, other)


def test_names_are_those_of_detectron2(published):
    names = set(published[1])
    for name in (
        "backbone.stem.conv1.norm.running_var",
        "backbone.res3.1.conv2.norm.weight",
        "backbone.res2.0.shortcut.norm.bias",
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.res5.0.conv3.weight",
        "roi_heads.box_predictor.cls_embedding.weight",
        "roi_heads.box_predictor.attr_score.bias",
    ):
        assert name in names


def test_a_detector_without_attributes_leaves_them_out(tmp_path, published):
    write_pickle(tmp_path / "d.pkl", published[1])
    other = small(attributes=None)
    load(other, tmp_path / "d.pkl")
    assert torch.equal(other.predictor.deltas.weight, published[0].predictor.deltas.weight)


def test_files_must_fit(tmp_path, published):
    weights = published[1]
    plain = {name: one for name, one in weights.items() if "attr" not in name and "embedding" not in name}
    write_pickle(tmp_path / "plain.pkl", plain)
    with pytest.raises(CheckpointMismatch, match=r"5 unfilled: predictor\.class_vectors\.weight"):
        load(small(), tmp_path / "plain.pkl")
    write_pickle(tmp_path / "more.pkl", {**weights, "roi_heads.mask_head.weight": torch.ones(1)})
    with pytest.raises(CheckpointMismatch, match=r"1 unused: roi_heads\.mask_head\.weight"):
        load(small(), tmp_path / "more.pkl")
    write_pickle(tmp_path / "d.pkl", weights)
    wider = FasterRcnn(attributes=3, blocks=(1, 2, 1, 1), width=8, classes=5)
    with pytest.raises(CheckpointMismatch, match="of the wrong shape"):
        load(wider, tmp_path / "d.pkl")


SIZES = [
    {"width": 4},
    {"width": 4, "outputs": 10},
    {"width": 6, "outputs": 8, "groups": 3, "stem": 5, "rpn_hidden": 7},
    {"width": 8, "outputs": 40, "groups": 2, "blocks": (1, 1, 2, 3), "classes": 7, "attributes": 4},
]


def by_hand(weights, pixels):
    """The maps of res4 and res5 from tensors with detectron2's names, with Caffe's stem and dilation."""

    def layer(x, name, **options):
        x = F.conv2d(x, weights[f"{name}.weight"], **options)
        norm = [weights[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *norm)

    def stage(x, name, stride, dilation=1):
        row = 0
        while f"{name}.{row}.conv1.weight" in weights:
            place, step = f"{name}.{row}", stride if row == 0 else 1
            y = layer(x, f"{place}.conv1", stride=step).relu()
            groups = y.shape[1] // weights[f"{place}.conv2.weight"].shape[1]
            y = layer(y, f"{place}.conv2", padding=dilation, dilation=dilation, groups=groups).relu()
            y = layer(y, f"{place}.conv3")
            shortcut = f"{place}.shortcut"
            x = (y + (layer(x, shortcut, stride=step) if f"{shortcut}.weight" in weights else x)).relu()
            row += 1
        assert row
        return x

    x = layer(pixels, "backbone.stem.conv1", stride=2, padding=3).relu()
    x = F.max_pool2d(x, 3, 2, 0, ceil_mode=True)
    for name, stride in (("res2", 1), ("res3", 2), ("res4", 2)):
        x = stage(x, f"backbone.{name}", stride)
    return x, stage(x, "roi_heads.res5", 1, dilation=2)


@pytest.mark.parametrize("options", SIZES)
def test_sizes_are_read_off_a_file_and_the_network_is_that_of_the_paper(options):
    torch.manual_seed(0)
    detector = FasterRcnn(**{"blocks": (1, 2, 1, 1), "stem": 8, "rpn_hidden": 8, "classes": 5, **options})
    for name, one in detector.resnet.named_buffers():
        if "running" in name:
            torch.nn.init.uniform_(one, 0.5, 2)
    weights = restore(detector.state_dict(), DETECTOR)
    sizes = sizes_of(weights, where="file")
    assert options.items() <= sizes.items()
    other = FasterRcnn(**sizes)
    fill_detector(other, weights, where="file")
    pixels = torch.randn(1, 3, 97, 130)
    maps, heads = by_hand(weights, pixels)
    scale = 1e-5 * max(1.0, heads.abs().max().item())
    torch.testing.assert_close(other.resnet.body(pixels), maps, atol=scale, rtol=1e-4)
    torch.testing.assert_close(other.resnet.layer4(maps), heads, atol=scale, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("backbone.res2.0.conv2.weight", None, r"backbone\.res2\.0\.conv2\.weight\b"),
        ("backbone.res2.0.conv2.weight", torch.ones(()), r"conv2\.weight\b"),
        ("backbone.res2.0.conv2.weight", torch.ones(4, 0, 3, 3), r"conv2\.weight\b"),
        ("backbone.res2.0.conv2.weight", torch.ones(4, 3, 3, 3), r"conv2\b.*\b4\b.*\b3\b"),
        ("roi_heads.box_predictor.cls_score.weight", torch.ones(0, 5), r"cls_score\.weight\b"),
    ],
)
def test_files_of_other_networks_have_no_sizes(published, name, tensor, message):
    weights = {key: one for key, one in published[1].items() if key != name}
    if tensor is not None:
        weights[name] = tensor
    with pytest.raises(CheckpointMismatch, match=f"file: .*{message}"):
        sizes_of(weights, where="file")


class Bomb:
    """What an attacker would put into a weight file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "wrap",
    [lambda bomb: bomb, lambda bomb: {"model": {"a": bomb}}, lambda bomb: {"model": {"a": np.array([bomb])}}],
)
def test_a_malicious_pickle_is_refused_and_never_runs(tmp_path, wrap, protocol):
    fuse = tmp_path / "exploded"
    path = tmp_path / "d.pkl"
    path.write_bytes(pickle.dumps(wrap(Bomb(fuse)), protocol=protocol))
    with pytest.raises(FormatError, match=r"d\.pkl: .*mkdir"):
        read_weights(path)
    assert not fuse.exists()
    pickle.loads(path.read_bytes())
    assert fuse.exists(), "the bomb of this test is a dud"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"cnumpy\nload\n(S'x'\ntR.", r"numpy\.load"),
        (b"cbuiltins\neval\n(S'1'\ntR.", r"builtins\.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ctypeslib.ctypes\x93.", r"numpy\.ctypeslib\.ctypes"),
        (b"c_codecs\nencode\n(Vx\nVzlib\ntR.", r"_codecs\.encode"),
    ],
)
def test_names_beside_arrays_become_nothing(tmp_path, program, message):
    (tmp_path / "d.pkl").write_bytes(program)
    with pytest.raises(FormatError, match=message):
        read_weights(tmp_path / "d.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"d\.pkl.* list\b"),
        ({}, r"d\.pkl"),
        ({"model": {"a": "text"}}, r"'a' .*\bstr\b"),
        ({"model": {"a": np.array(["text"])}}, r"'a' .*numpy\.ndarray"),
        ({"model": {3: np.ones(1)}}, r"\b3 .*ndarray"),
    ],
)
def test_pickles_of_something_else_name_it(tmp_path, content, message):
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(FormatError, match=message):
        read_weights(tmp_path / "d.pkl")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_pickles_say_so(tmp_path, published, share):
    write_pickle(tmp_path / "d.pkl", published[1])
    whole = (tmp_path / "d.pkl").read_bytes()
    (tmp_path / "d.pkl").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FormatError, match=r"d\.pkl: "):
        read_weights(tmp_path / "d.pkl")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FormatError, match=r"none\.pkl: "):
        load(small(), tmp_path / "none.pkl")


def test_arrays_of_other_byte_order_are_read(tmp_path):
    values = np.arange(3, dtype=">f4")
    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"a": values}, protocol=2))
    assert read_weights(tmp_path / "d.pkl")["a"].tolist() == [0, 1, 2]
