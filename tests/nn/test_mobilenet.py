import pytest
import torch
from torch.nn import functional as F

from diptych.nn import MobileNet, efficientnet_lite0, mobilenet_v2
from diptych.nn.mobilenet import Convolution


def norm(x, layer):
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)


@pytest.mark.parametrize(
    ("build", "parameters", "entries"), [(mobilenet_v2, 3_504_872, 314), (efficientnet_lite0, 4_652_008, 296)]
)
def test_published_sizes(build, parameters, entries):
    """Parameters and state dict entries of torchvision's file, and of that of EfficientNet-Lite0."""
    with torch.device("meta"):
        network = build(classes=1000)
    assert sum(one.numel() for one in network.parameters()) == parameters
    assert len(network.state_dict()) == entries


def test_names_are_those_of_torchvision():
    with torch.device("meta"):
        names = {name: tuple(one.shape) for name, one in mobilenet_v2(classes=1000).state_dict().items()}
    assert names["features.0.0.weight"] == (32, 3, 3, 3)
    assert names["features.1.conv.0.0.weight"] == (32, 1, 3, 3)  # the first block has no expansion
    assert names["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert names["features.2.conv.1.0.weight"] == (96, 1, 3, 3)
    assert names["features.17.conv.3.running_var"] == (320,)
    assert names["features.18.0.weight"] == (1280, 320, 1, 1)
    assert names["classifier.1.weight"] == (1000, 1280)


def test_forward_is_the_paper():
    """From the state alone: expansion, filters of one channel, projection without activation, shortcut."""
    torch.manual_seed(0)
    network = MobileNet(((1, 8, 1, 1, 3), (6, 8, 2, 2, 5))).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    pixels = torch.randn(2, 3, 33, 40)
    first, last = network.features[0], network.features[-1]
    x = F.relu6(norm(F.conv2d(pixels, first[0].weight, None, 2, 1), first[1]))
    for block, stride in zip(network.features[1:-1], (1, 2, 1), strict=True):
        y = x
        for conv, bn, _ in block.conv[:-2]:
            size = conv.weight.shape[-1]
            step, groups = (stride, len(conv.weight)) if size > 1 else (1, 1)
            y = F.relu6(norm(F.conv2d(y, conv.weight, None, step, size // 2, 1, groups), bn))
        y = norm(F.conv2d(y, block.conv[-2].weight), block.conv[-1])
        x = x + y if stride == 1 and x.shape == y.shape else y
    expected = F.relu6(norm(F.conv2d(x, last[0].weight), last[1])).mean((2, 3))
    torch.testing.assert_close(network(pixels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 3, 1)])
def test_padding_of_tensorflow_puts_the_odd_pixel_last(size, kernel, stride):
    conv = Convolution(1, 1, kernel, stride, as_tensorflow=True)
    torch.nn.init.ones_(conv.weight)
    x = torch.randn(1, 1, size, size + 1)
    assert conv(x).shape[2:] == (-(-size // stride), -(-(size + 1) // stride))
    torch.testing.assert_close(conv(x)[0, 0, 0, 1], window(x, kernel, stride, 1))


def window(x, kernel, stride, column):
    """The sum of the window in row 0 and a column, with TensorFlow's margins."""
    margins = [max((-(-n // stride) - 1) * stride + kernel - n, 0) // 2 for n in x.shape[2:]]
    left = column * stride - margins[1]
    return x[0, 0, : kernel - margins[0], max(left, 0) : left + kernel].sum()


def test_an_untrained_network_tells_pictures_apart():
    """In evaluation mode, too: it is the control of pretrained ones."""
    torch.manual_seed(0)
    vectors = efficientnet_lite0().eval()(torch.randn(4, 3, 64, 64))
    assert vectors.std(0).mean() > 0.01
