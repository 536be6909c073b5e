"""The detector equals py-bottom-up-attention: operators, sizes, every stage of a pass, every selection."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diptych.convert.detector import DETECTOR, WITHOUT_ATTRIBUTES, fill_detector
from diptych.convert.rules import convert
from diptych.data import DetectorTransform
from diptych.detect import (
    BoxRule,
    ExtractSettings,
    FasterRcnn,
    build_detector,
    describe,
    extract,
    select,
)
from diptych.features import FeatureStore
from diptych.nn.roi import anchors, clip_boxes, decode_boxes, has_area, nms, roi_align, roi_pool

OPERATORS, SIZES = "detector-ops", "detector-resize"
DETECTORS = ["detector-vg", "detector-vgattr", "detector-d2c4-roialign"]
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}  # of logits and features, behind 50 layers
PIXELS = {"atol": 2e-3, "rtol": 0.0}


@pytest.fixture(scope="module")
def operators(goldens):
    """Cases of an operator by name: what its json says, its inputs, its outputs."""
    tensors = load_file(goldens / f"{OPERATORS}.safetensors")
    cases = json.loads((goldens / f"{OPERATORS}.json").read_text())["cases"]

    def below(start):
        return {name.removeprefix(start): one for name, one in tensors.items() if name.startswith(start)}

    def of(operator):
        found = [
            (case, below(f"inputs/{name}/"), below(f"outputs/{name}/"))
            for name, case in cases.items()
            if name.split("/")[0] == operator
        ]
        assert found, f"no case of {operator}"
        return found

    return of


@pytest.mark.parametrize("operator", ["nms", "batched_nms"])
def test_suppression_equals_the_original(operators, operator):
    for case, given, expected in operators(operator):
        kept = nms(given["boxes"], given["scores"], case["iou_threshold"], groups=given.get("class_index"))
        assert torch.equal(kept, expected["keep"]), case


def pooled(operator, case, given):
    """The regions of every picture of a case, in the order of the case."""
    result = []
    for roi in given["rois"]:
        result.append(
            operator(
                given["features"][int(roi[0])],
                roi[None, 1:],
                size=case["output"][0],
                scale=case["spatial_scale"],
            )
        )
    return torch.cat(result)


def test_roi_pool_equals_the_original_to_the_bit(operators):
    for case, given, expected in operators("roi_pool"):
        assert torch.equal(pooled(roi_pool, case, given), expected["pooled"]), case


def test_roi_align_equals_the_original(operators):
    for case, given, expected in operators("roi_align"):

        def operator(*arguments, case=case, **options):
            return roi_align(*arguments, samples=case["sampling_ratio"], aligned=case["aligned"], **options)

        result = pooled(operator, case, given)
        torch.testing.assert_close(result, expected["pooled"], atol=2e-6, rtol=0)


def test_box_coding_equals_the_original(operators):
    for case, given, expected in operators("apply_deltas"):
        moved = decode_boxes(given["boxes"], given["deltas"], weights=case["weights"])
        torch.testing.assert_close(moved, expected["boxes"], atol=0, rtol=1e-5)
        (name,) = (name for name in expected if name.startswith("clipped_"))
        height, width = map(int, name.removeprefix("clipped_").split("x"))
        clipped = clip_boxes(moved.reshape(-1, 4), (width, height))
        torch.testing.assert_close(clipped, expected[name], atol=0, rtol=1e-5)
        assert torch.equal(has_area(clipped), expected["nonempty"])


def test_anchors_equal_the_original(operators):
    for case, _, expected in operators("anchors"):
        options = {"sizes": case["sizes"], "ratios": case["ratios_h_over_w"], "stride": case["stride"]}
        (name,) = (name for name in expected if name.startswith("grid_"))
        height, width = map(int, name.removeprefix("grid_").split("x"))
        assert torch.equal(anchors(height, width, **options), expected[name])
        assert torch.equal(anchors(1, 1, **options), expected["cell"])


def test_map_sizes_equal_the_original(goldens):
    table = load_file(goldens / f"{OPERATORS}.safetensors")["outputs/stem_sizes"]
    sizes = {"blocks": (1, 1, 1, 1), "stem": 1, "width": 1, "classes": 1}
    for caffe, stem, last in ((True, 1, 3), (False, 2, 4)):
        resnet = FasterRcnn(caffe=caffe, **sizes).resnet
        for row in table.tolist():
            pixels = torch.zeros(1, 3, row[0], row[0])
            assert resnet.pool(resnet.conv1(pixels)).shape[2:] == (row[stem],) * 2
            assert resnet.body(pixels).shape[2:] == (row[last],) * 2


def test_resizing_equals_the_original(goldens):
    tensors = load_file(goldens / f"{SIZES}.safetensors")
    about = json.loads((goldens / f"{SIZES}.json").read_text())
    for least, most, height, width, *expected in tensors["outputs/size_table"].tolist():
        got = DetectorTransform(least=least, most=most).resized(width, height)
        assert got == (expected[1], expected[0]), (least, most, height, width)
    pictures = [name for name in about if re.fullmatch(r"image\d+", name)]
    assert pictures
    for name in pictures:
        prepare = DetectorTransform(
            least=about[name]["min_size"], most=about[name]["max_size"], mean=(0.0, 0.0, 0.0)
        )
        pixels = prepare(Image.fromarray(tensors[f"inputs/{name}"].numpy())).pixels
        assert torch.equal(pixels.flip(0).permute(1, 2, 0).byte(), tensors[f"outputs/{name}"])


def build(golden):
    config = golden.config
    prepare = DetectorTransform(
        least=config["min_size"], most=config["max_size"], mean=tuple(config["pixel_mean_bgr"])
    )
    detector = FasterRcnn(
        classes=config["num_classes"],
        attributes=config["num_attributes"] if config["attribute_head"] else None,
        blocks=tuple(config["blocks_per_stage"]),
        stem=config["stem_out_channels"],
        width=config["width_per_group"] * config["num_groups"],
        outputs=config["res2_out_channels"],
        groups=config["num_groups"],
        stride_first=config["stride_in_1x1"],
        rpn_hidden=config["rpn_hidden_channels"] if config["rpn_hidden_channels"] > 0 else None,
        anchor_sizes=config["anchor_sizes"],
        anchor_ratios=config["anchor_ratios_h_over_w"],
        before=config["rpn_pre_nms_topk"],
        proposals=config["rpn_post_nms_topk"],
        proposal_threshold=config["rpn_nms_thresh"],
        pool={"ROIPool": "max", "ROIAlignV2": "align"}[config["pooler_type"]],
        pool_size=config["pooler_resolution"],
        caffe=config["caffe_maxpool"],
        dilate=not config["res5_halve"],
        prepare=prepare,
    )
    fill_detector(detector, golden.weights, where=golden.name)
    return detector


def pictures(golden, detector):
    """The prepared pictures of a golden, in order."""
    found = []
    while (name := f"image{len(found)}") in golden.inputs:
        found.append(detector.prepare(Image.fromarray(golden.inputs[name].numpy())))
    assert found
    return found


def check(golden, name, got, tolerance=TOLERANCE):
    """Equal within `tolerance`, whose absolute part is of numbers up to 1 and grows with larger ones."""
    expected = golden.outputs[name]
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        torch.as_tensor(got),
        expected,
        **{**tolerance, "atol": tolerance["atol"] * (max(1.0, largest) if tolerance is TOLERANCE else 1)},
        msg=lambda text: f"{golden.name} {name}: {text}",
    )


def check_detection(golden, start, number, detection):
    """One picture of a pass whose outputs stand below `start`; rows of several pictures follow each other."""
    check(golden, f"{start}/proposals{number}", detection.boxes, PIXELS)
    check(golden, f"{start}/proposal_logits{number}", detection.objectness)


def check_heads(golden, start, detections):
    fields = {
        "region_features": "features",
        "class_logits": "class_logits",
        "box_deltas": "deltas",
        "attr_logits": "attribute_logits",
    }
    for name, field in fields.items():
        if f"{start}/{name}" in golden.outputs:
            check(golden, f"{start}/{name}", torch.cat([getattr(one, field) for one in detections]))


def check_regions(golden, start, regions, features):
    """Regions beside those of the original, less the rows for which it has features but no box."""
    expected = {
        name.removeprefix(f"{start}/"): one
        for name, one in golden.outputs.items()
        if name.startswith(f"{start}/")
    }
    np.testing.assert_array_equal(regions.labels, expected["objects_id"], start)
    check(golden, f"{start}/objects_conf", regions.scores)
    if "boxes" in expected:
        check(golden, f"{start}/boxes", regions.boxes, PIXELS)
    if "attrs_id" in expected:
        np.testing.assert_array_equal(regions.attributes, expected["attrs_id"], start)
        check(golden, f"{start}/attrs_conf", regions.attribute_scores)
    if len(regions) == len(expected["features"]):
        check(golden, f"{start}/features", regions.features)
    else:
        assert len(regions) < len(expected["features"])
        distance = np.abs(regions.features[:, None] - expected["features"].numpy()).max(2)
        rows = distance.argmin(1)
        assert (distance.min(1) < 1e-4 * max(1.0, float(expected["features"].abs().max()))).all()
        assert (np.diff(rows) > 0).all(), "the rows that are left keep their order"


@pytest.mark.parametrize("name", DETECTORS)
def test_preprocessing_and_first_stages_equal_the_original(golden, name):
    golden = golden(name)
    detector = build(golden)
    for number, picture in enumerate(pictures(golden, detector)):
        start = f"image{number}"
        mean = torch.tensor(golden.config["pixel_mean_bgr"])
        raw = (picture.pixels.permute(1, 2, 0) + mean).round().byte()
        assert torch.equal(raw, golden.outputs[f"{start}/resized_bgr_uint8"])
        pixels = picture.pixels[None]
        check(golden, f"{start}/preprocessed_corner", pixels[..., :6, :6])
        check(golden, f"{start}/preprocessed_end", pixels[..., -6:, -6:])
        total = torch.stack([pixels.double().sum(), pixels.double().abs().sum()])[None]
        torch.testing.assert_close(total, golden.outputs[f"{start}/preprocessed_sum"], rtol=1e-7, atol=1e-2)
        maps = detector.resnet.body(pixels)
        check(golden, f"{start}/res4_slice", maps[:, :8, :4, :6])
        values = maps.double()
        stats = [values.sum(), values.abs().sum(), values.square().sum(), *maps.shape[2:]]
        expected = golden.outputs[f"{start}/res4_stats"]
        torch.testing.assert_close(torch.tensor(stats, dtype=torch.double), expected, rtol=1e-5, atol=1e-3)
        hidden = detector.proposer.conv(maps).relu()
        check(golden, f"{start}/rpn_objectness_slice", detector.proposer.objectness(hidden)[..., :3, :4])
        check(golden, f"{start}/rpn_deltas_slice", detector.proposer.deltas(hidden)[..., :3, :4])


@pytest.mark.parametrize("name", DETECTORS)
def test_pooled_regions_equal_the_original(golden, name):
    golden = golden(name)
    detector = build(golden)
    operator = roi_pool if detector.pool == "max" else roi_align
    for number, picture in enumerate(pictures(golden, detector)):
        maps = detector.resnet.body(picture.pixels[None])[0]
        boxes = golden.outputs[f"image{number}/proposals0"]
        regions = operator(
            maps,
            boxes,
            size=golden.config["pooler_resolution"],
            scale=1 / golden.config["feature_stride"],
        )
        check(golden, f"image{number}/roi_pooled_slice", regions[:6, :6])
        total = regions.double().sum((1, 2, 3))
        torch.testing.assert_close(
            total, golden.outputs[f"image{number}/roi_pooled_sum"], rtol=1e-5, atol=1e-2
        )


@pytest.mark.parametrize("name", DETECTORS)
def test_a_pass_and_every_selection_equal_the_original(golden, name, goldens):
    golden = golden(name)
    about = json.loads((goldens / f"{name}.json").read_text())
    detector = build(golden)
    # All pictures in one call: their regions share the head, and nothing else.
    detections = detector(pictures(golden, detector))
    for number, detection in enumerate(detections):
        start = f"image{number}"
        check_detection(golden, start, 0, detection)
        check_heads(golden, start, [detection])
        rules = [BoxRule(*pair) for pair in about["selection"]["pairs_min_max"]]
        for rule, regions in zip(rules, select(detection, rules), strict=True):
            tag = f"{start}/min{rule.least}max{rule.most}"
            check_regions(golden, tag, regions, detection.features)
        for tag in {key.rpartition("/")[0] for key in golden.outputs if key.startswith(f"{start}/perclass")}:
            count = int(tag.rpartition("_n")[2])
            (regions,) = select(detection, [BoxRule(count, count, "per-class")])
            check_regions(golden, tag, regions, detection.features)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # stores are read in place
@pytest.mark.parametrize("name", DETECTORS)
def test_stores_made_of_picture_files_equal_the_original(golden, name, goldens, tmp_path, monkeypatch):
    golden = golden(name)
    about = json.loads((goldens / f"{name}.json").read_text())
    monkeypatch.setattr("diptych.detect.extractor.build_detector", lambda preset: build(golden))
    (tmp_path / "pictures").mkdir()
    images = {key: one for key, one in golden.inputs.items() if re.fullmatch(r"image\d+", key)}
    for key, pixels in images.items():
        Image.fromarray(pixels.numpy()).save(tmp_path / f"pictures/{key}.png")
    pairs = about["selection"]["pairs_min_max"]
    settings = ExtractSettings(detector="tiny", rules=tuple(str(BoxRule(*pair)) for pair in pairs))
    report = extract(tmp_path / "pictures", tmp_path / "stores", settings, shard=2)
    for (least, most), one in zip(pairs, report.stores, strict=True):
        store = FeatureStore(one.path)
        for key in images:
            check_regions(golden, f"{key}/min{least}max{most}", store[key], store[key].features)


@pytest.mark.parametrize("name", DETECTORS)
def test_given_boxes_equal_the_original(golden, name):
    golden = golden(name)
    detector = build(golden)
    found = pictures(golden, detector)
    boxes = [golden.inputs[f"given_boxes{number}"] for number in range(len(found))]
    for number, (detection, given) in enumerate(zip(detector(found, boxes=boxes), boxes, strict=True)):
        regions = describe(detection, given)
        check_regions(golden, f"given_box{number}", regions, detection.features)
        assert np.array_equal(regions.boxes, given)


def test_a_padded_batch_equals_the_original(golden):
    golden = golden("detector-vg")
    detector = build(golden)
    detections = detector(pictures(golden, detector), padded=True)
    for number, detection in enumerate(detections):
        check_detection(golden, "batched", number, detection)
        tags = {key.rpartition("/")[0] for key in golden.outputs if key.startswith(f"batched/image{number}/")}
        for tag in tags:
            least, most = map(int, re.fullmatch(r".*min(\d+)max(\d+)", tag).groups())
            (regions,) = select(detection, [BoxRule(least, most)])
            check_regions(golden, tag, regions, detection.features)
    check_heads(golden, "batched", detections)


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("vg", "manifest-detector-vg"),
        ("vgattr", "manifest-detector-vgattr"),
        ("vgattr-original", "manifest-detector-vgattr"),
    ],
)
def test_full_size_weights_have_the_names_and_shapes_of_the_original(goldens, preset, name):
    manifest = json.loads((goldens / f"{name}.json").read_text())["tensors"]
    with torch.device("meta"):
        detector = build_detector(preset)
        weights = {key: torch.empty(one["shape"]) for key, one in manifest.items()}
    table = WITHOUT_ATTRIBUTES if preset == "vg" else DETECTOR
    shapes = {key: one.shape for key, one in detector.state_dict().items()}
    converted = convert(weights, table, shapes=shapes, where=name)
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    assert converted.keys() == shapes.keys() - counters
    anchor = "proposal_generator.anchor_generator.cell_anchors.0"
    assert tuple(manifest[anchor]["shape"]) == (detector.proposer.objectness.out_channels, 4)
