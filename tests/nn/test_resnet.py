import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.nn import ResNet, resnet50, resnet101, resnet152, resnet_tiny
from diptych.nn.resnet import Basic, Bottleneck


def small(**options):
    torch.manual_seed(0)
    return ResNet(Bottleneck, (1, 2, 1, 1), width=4, **options)


@pytest.mark.parametrize(
    ("build", "parameters", "entries"),
    [(resnet50, 25_557_032, 320), (resnet101, 44_549_160, 626), (resnet152, 60_192_808, 932)],
)
def test_published_sizes(build, parameters, entries):
    """Parameters and state dict entries that torchvision documents and its files hold."""
    with torch.device("meta"):
        model = build()
    assert sum(one.numel() for one in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


def test_names_are_those_of_torchvision():
    with torch.device("meta"):
        names = resnet50().state_dict()
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.downsample.1.num_batches_tracked", "fc.bias"):
        assert name in names
    assert names["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert not any("downsample" in name for name in names if ".0." not in name)


def norm(x, layer):
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def by_hand(model, pixels, stride_first):
    """The forward pass from the state dict alone, as the paper describes it."""
    x = F.max_pool2d(norm(F.conv2d(pixels, model.conv1.weight, None, 2, 3), model.bn1).relu(), 3, 2, 1)
    for number in range(1, 5):
        for row, block in enumerate(getattr(model, f"layer{number}")):
            stride = 2 if number > 1 and row == 0 else 1
            first, second = (stride, 1) if stride_first else (1, stride)
            y = norm(F.conv2d(x, block.conv1.weight, None, first), block.bn1).relu()
            groups = block.conv1.weight.shape[0] // block.conv2.weight.shape[1]
            y = norm(F.conv2d(y, block.conv2.weight, None, second, 1, groups=groups), block.bn2).relu()
            y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
            if row == 0:
                x = norm(F.conv2d(x, block.downsample[0].weight, None, stride), block.downsample[1])
            x = (x + y).relu()
    return x.mean((2, 3))


@pytest.mark.parametrize(
    "options", [{}, {"stride_first": True}, {"outputs": 6}, {"outputs": 40}, {"outputs": 12, "groups": 2}]
)
def test_forward_is_the_paper(options):
    model = small(**options, classes=None).eval()
    stride_first = options.get("stride_first", False)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.1)
    pixels = torch.randn(2, 3, 65, 50)
    torch.testing.assert_close(model(pixels), by_hand(model, pixels, stride_first), atol=1e-5, rtol=1e-4)


def test_logits_are_fc_of_the_pooled_vector():
    logits, pooled = small(classes=7).eval(), small(classes=None).eval()
    pooled.load_state_dict(logits.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(logits(pixels), logits.fc(pooled(pixels)))
    assert (logits.dim, pooled.dim) == (7, 128)
    assert not any(name.startswith("fc") for name in pooled.state_dict())


def test_frozen_batch_norm_neither_counts_nor_trains():
    model = small(classes=None, freeze_batch_norm=True).train()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    model(torch.randn(4, 3, 40, 40)).sum().backward()
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert all(one.grad is None for name, one in model.named_parameters() if "bn" in name)
    assert model.conv1.weight.grad is not None
    assert model.training


def test_weights_stay_contiguous_for_safetensors():
    assert all(one.is_contiguous() for one in resnet_tiny().parameters())


def test_one_pixel_pictures_pass():
    assert resnet_tiny().eval()(torch.randn(1, 3, 1, 1)).isfinite().all()


@pytest.mark.slow
def test_tiny_learns_colored_shapes():
    """Red or green, disc or square, anywhere: the label is whether both say the same."""
    torch.manual_seed(0)

    def pictures(count):
        y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
        color, shape = torch.randint(2, (2, count))
        center = torch.randint(14, 34, (2, count, 1, 1))
        distance = torch.stack([(x - center[0]).abs(), (y - center[1]).abs()]).float()
        inside = torch.where(shape[:, None, None] == 1, distance.norm(dim=0), distance.amax(0)) < 11
        pixels = 0.2 * torch.randn(count, 3, 48, 48)
        pixels[torch.arange(count), color] += 2.0 * inside
        return pixels, (color == shape).long()

    model, head = resnet_tiny(), nn.Linear(128, 2)
    train, test = pictures(512), pictures(128)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(5):
        for rows in torch.randperm(512).split(32):
            optimizer.zero_grad()
            F.cross_entropy(head(model(train[0][rows])), train[1][rows]).backward()
            optimizer.step()
    model.eval()
    assert (head(model(test[0])).argmax(1) == test[1]).float().mean() > 0.9


def test_the_network_comes_apart():
    model, pixels = small(classes=None).eval(), torch.randn(2, 3, 65, 50)
    maps = model.body(pixels)
    assert maps.shape == (2, model.body_dim, 5, 4)
    torch.testing.assert_close(model.layer4(maps).mean((2, 3)), model(pixels))


@pytest.mark.parametrize("block", [Basic, Bottleneck])
def test_a_dilated_last_stage_keeps_the_resolution(block):
    torch.manual_seed(0)
    plain, dilated = (ResNet(block, (1, 1, 1, 2), width=4, dilate_last=dilate) for dilate in (False, True))
    dilated.load_state_dict(plain.state_dict())
    maps = torch.randn(1, plain.body_dim, 9, 7)
    assert plain.layer4(maps).shape[2:] == (5, 4)
    assert dilated.layer4(maps).shape[2:] == (9, 7)
    impulse = torch.zeros(1, dilated.layer4[1].conv2.in_channels, 9, 9)
    impulse[:, :, 4, 4] = 1
    reached = dilated.layer4[1].conv2(impulse)[0, 0].nonzero()
    assert reached.unique().tolist() == [2, 4, 6]


def test_caffe_pools_without_padding_and_rounds_up():
    plain, caffe = small(), small(caffe_pool=True)
    stem = torch.randn(1, 4, 8, 9)
    assert plain.pool(stem).shape[2:] == (4, 5)
    assert caffe.pool(stem).shape[2:] == (4, 4)
    assert torch.equal(caffe.pool(stem)[0, :, 0, 0], stem[0, :, :3, :3].amax((1, 2)))
    assert small(stem=6).conv1.out_channels == 6


@pytest.mark.parametrize(
    ("frozen", "parts"), [(0, set()), (1, {"conv1", "bn1"}), (2, {"conv1", "bn1", "layer1"})]
)
def test_frozen_parts_keep_their_weights(frozen, parts):
    model = small(frozen=frozen)
    kept = {name.split(".")[0] for name, one in model.named_parameters() if not one.requires_grad}
    assert kept == parts
