import pytest
import torch
from PIL import Image

from diptych.data import DetectorTransform
from diptych.detect import BoxRule, FasterRcnn, build_detector, describe, select
from diptych.errors import ConfigError


def small(**options):
    torch.manual_seed(0)
    sizes = {"blocks": (1, 1, 1, 1), "stem": 8, "width": 8, "rpn_hidden": 16, "classes": 5}
    prepare = DetectorTransform(least=96, most=160)
    detector = FasterRcnn(**{**sizes, "before": 200, "proposals": 20, "prepare": prepare, **options})
    for name, one in detector.named_parameters():
        if name.startswith("predictor"):
            torch.nn.init.normal_(one, std=0.05)
    return detector


def picture(detector, width=120, height=90, seed=0):
    pixels = torch.randint(
        256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return detector.prepare(Image.fromarray(pixels.numpy()))


VARIANTS = [{}, {"attributes": 4}, {"pool": "align", "caffe": False}]


@pytest.mark.parametrize("options", VARIANTS)
def test_a_pass_gives_all_that_selections_need(options):
    detector = small(**options)
    (found,) = detector([picture(detector)])
    count = len(found.boxes)
    assert 1 <= count <= 20
    assert found.features.shape == (count, detector.dim) == (count, 256)
    assert found.class_logits.shape == (count, 6)
    assert found.deltas.shape == (count, 20)
    assert (found.attribute_logits is None) == ("attributes" not in options)
    assert (found.objectness.diff() <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([128.0, 96.0]).repeat(2)).all()
    (regions,) = select(found, [BoxRule(1, 20)])
    regions.verify()


@pytest.mark.parametrize("options", VARIANTS)
def test_pictures_of_a_call_do_not_meet(options):
    detector = small(**options)
    pictures = [picture(detector), picture(detector, 90, 160, seed=1), picture(detector, 50, 50, seed=2)]
    for one, together in zip(pictures, detector(pictures), strict=True):
        (alone,) = detector([one])
        torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(together.features, alone.features, atol=1e-5, rtol=1e-4)


def test_a_padded_batch_shares_one_map():
    detector = small()
    pictures = [picture(detector), picture(detector, 90, 160, seed=1)]
    plain, padded = detector(pictures), detector(pictures, padded=True)
    assert [one.resized for one in plain] == [one.resized for one in padded]
    assert any(
        len(one.boxes) != len(other.boxes) or not torch.allclose(one.features, other.features, atol=1e-3)
        for one, other in zip(plain, padded, strict=True)
    )
    same = [picture(detector, seed=3), picture(detector, seed=4)]
    for one, other in zip(detector(same), detector(same, padded=True), strict=True):
        torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=1e-4)


def test_proposals_given_back_have_the_same_features():
    detector = small(attributes=4)
    one = picture(detector)
    (proposed,) = detector([one])
    boxes = proposed.boxes * (120 / 128)
    (given,) = detector([one], boxes=[boxes])
    assert given.objectness is None
    torch.testing.assert_close(given.features, proposed.features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(given.attribute_logits, proposed.attribute_logits, atol=1e-5, rtol=1e-4)


def test_given_boxes_may_be_few_none_or_outside():
    detector = small()
    boxes = [torch.zeros(0, 4), torch.tensor([[500.0, 500, 600, 600]])]
    none, outside = detector([picture(detector), picture(detector, seed=1)], boxes=boxes)
    assert none.features.shape == (0, 256)
    assert len(describe(none, boxes[0])) == 0
    assert outside.features.isfinite().all()
    (nothing,) = detector([picture(detector)], boxes=boxes[:1])
    assert nothing.class_logits.shape == (0, 6)


def test_no_pictures_no_detections():
    assert small()([]) == []


def test_the_head_in_parts_computes_the_same(monkeypatch):
    detector = small()
    (whole,) = detector([picture(detector)])
    monkeypatch.setattr("diptych.detect.faster_rcnn.HEAD_CHUNK", 3)
    (parts,) = detector([picture(detector)])
    torch.testing.assert_close(parts.features, whole.features, atol=1e-5, rtol=1e-4)


def test_the_attribute_looks_at_the_likeliest_class_or_background():
    predictor = small(attributes=4).predictor
    torch.nn.init.zeros_(predictor.classes.weight)
    features = torch.randn(1, 256)
    for likely in (2, 5):
        with torch.no_grad():
            predictor.classes.bias.copy_(torch.eye(6)[likely])
        vector = predictor.class_vectors.weight[likely]
        hidden = predictor.attribute_hidden(torch.cat([features[0], vector])).relu()
        torch.testing.assert_close(predictor(features)[2][0], predictor.attributes(hidden))


def test_autocast_leaves_boxes_and_logits_exact_in_type():
    detector = small()
    one = picture(detector)
    (exact,) = detector([one], boxes=[torch.tensor([[5.0, 5, 80, 60]])])
    with torch.autocast("cpu", torch.bfloat16):
        (rough,) = detector([one], boxes=[torch.tensor([[5.0, 5, 80, 60]])])
        (free,) = detector([one])
    for field in ("boxes", "objectness", "features", "class_logits", "deltas"):
        assert getattr(free, field).dtype == torch.float32
    assert (rough.features - exact.features).norm() < 0.05 * exact.features.norm()


def test_nothing_trains_and_nothing_counts():
    detector = small().train()
    before = {name: one.clone() for name, one in detector.state_dict().items()}
    detector([picture(detector)])
    assert all(torch.equal(before[name], one) for name, one in detector.state_dict().items())
    assert not any(one.requires_grad for one in detector.parameters())


@pytest.mark.parametrize(
    ("preset", "values", "feature_dim"),
    # Values of the released files, less the 48 of anchors and the running counts of batch norms.
    [
        ("vg", 63_749_485 - 48, 2048),
        ("vgattr", 65_545_214 - 48, 2048),
        ("vgattr-original", 65_545_214 - 48, 2048),
    ],
)
def test_published_sizes(preset, values, feature_dim):
    with torch.device("meta"):
        detector = build_detector(preset)
    state = detector.state_dict()
    assert sum(one.numel() for name, one in state.items() if "num_batches" not in name) == values
    assert detector.dim == feature_dim


def test_the_coco_preset_is_that_of_detectron2():
    with torch.device("meta"):
        detector = build_detector("coco")
    assert detector.proposer.conv.out_channels == 1024
    assert detector.proposer.objectness.out_channels == 15
    assert detector.predictor.classes.out_features == 81
    assert detector.resnet.layer4[0].conv1.stride == (2, 2)
    assert detector.prepare.mean == (103.53, 116.28, 123.675)


def test_other_names_are_refused():
    with pytest.raises(ConfigError, match=r"'vgatr': .* vg, .*'vgattr'"):
        build_detector("vgatr")
