import pytest
import torch

from diptych.convert.resnet import load_resnet
from diptych.errors import CheckpointMismatch
from diptych.nn import ResNet
from diptych.nn.resnet import Bottleneck


def small(**options):
    return ResNet(Bottleneck, (1, 2, 1, 1), width=4, **options)


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(0)
    model = small(classes=10)
    torch.save(model.state_dict(), tmp_path / "resnet.pth")
    return model, tmp_path / "resnet.pth"


def test_every_weight_arrives(published):
    original, path = published
    other = small(classes=10)
    load_resnet(other, path)
    assert all(torch.equal(one, original.state_dict()[name]) for name, one in other.state_dict().items())


def test_fc_is_left_out_where_it_is_not_used(published):
    original, path = published
    other = small(classes=None)
    load_resnet(other, path)
    pixels = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(original.eval().fc(other.eval()(pixels)), original(pixels))


def test_files_without_counters_fit(tmp_path):
    old = {name: one for name, one in small(classes=10).state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pth")
    load_resnet(small(classes=10), tmp_path / "old.pth")


def test_other_depths_and_missing_fc_are_mismatches(tmp_path, published):
    with pytest.raises(CheckpointMismatch, match=r"unused: layer2\.1\.conv1\.weight"):
        load_resnet(ResNet(Bottleneck, (1, 1, 1, 1), width=4, classes=10), published[1])
    torch.save(small(classes=None).state_dict(), tmp_path / "headless.pth")
    with pytest.raises(CheckpointMismatch, match=r"2 unfilled: fc\.weight, fc\.bias"):
        load_resnet(small(classes=10), tmp_path / "headless.pth")
