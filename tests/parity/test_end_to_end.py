"""The region encoder equals VL-BERT's image network: maps, regions, their features, gradients."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diptych.convert.end_to_end import REGION_ENCODER, fill_region_encoder
from diptych.convert.rules import restore
from diptych.data import DetectorTransform
from diptych.datasets.vcr.polygons import silhouette
from diptych.models import RegionEncoder
from diptych.nn.resnet import Bottleneck, ResNet
from diptych.nn.roi import roi_align
from diptych.types import PaddedRegions

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
MISC = "vlbert-misc"
NAMES = ["vlbert-fastrcnn", "vlbert-fastrcnn-undilated"]


def build(golden):
    config = golden.config
    assert config["IMAGE_FROZEN_BN"]
    resnet = ResNet(
        Bottleneck,
        (*config["blocks_per_stage"], config["roi_head_blocks"]),
        width=config["base_width"],
        classes=None,
        stride_first=config["IMAGE_STRIDE_IN_1x1"],
        dilate_last=config["IMAGE_C5_DILATED"],
        frozen=max(config["IMAGE_FROZEN_BACKBONE_STAGES"]),
        freeze_batch_norm=True,
    )
    roi, options = config.get("roi"), {}  # goldens of whole models do not tell: VL-BERT's are our defaults
    if roi is not None:
        options = {"size": roi["output"][0], "samples": roi["sampling_ratio"], "aligned": roi["aligned"]}
    encoder = RegionEncoder(resnet, **options)
    fill_region_encoder(encoder, golden.weights, where=golden.name)
    return encoder.train()  # batch norms stay frozen


def unpack(inputs):
    mask, sizes = inputs["box_mask"].bool(), inputs["im_info"][:, :2]
    return PaddedRegions(
        features=torch.zeros(*mask.shape, 0),
        boxes=inputs["boxes"] / sizes.repeat(1, 2)[:, None],
        mask=mask,
        image_index=torch.zeros_like(mask, dtype=torch.int64),
        sizes=sizes,
    )


def project(golden, features, regions):
    """What the model above makes of a region: waves of its box, then one layer."""
    low, high = regions.boxes.split(2, -1)
    percent = 100 * torch.cat([(low + high) / 2, high - low], -1)[..., None]
    count = golden.config["coord_dim_per_sin_or_cos"]
    angles = percent / 1000 ** (torch.arange(count) / count)
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(2)
    weight, bias = (golden.weights[f"obj_downsample.1.{part}"] for part in ("weight", "bias"))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    return F.relu(F.linear(torch.cat([waves, features], -1), weight, bias)), bias


@pytest.mark.parametrize("name", NAMES)
def test_features_and_gradients_equal_the_original(golden, name):
    golden = golden(name)
    encoder, regions = build(golden), unpack(golden.inputs)
    pixels, mask = golden.inputs["image"], regions.mask
    features = encoder(pixels, regions)
    golden.check("obj_reps_raw", features[mask], mask)
    assert not features[~mask].any()
    projected, bias = project(golden, features, regions)
    golden.check("obj_reps", projected[mask], mask)
    projected[mask].square().sum().backward()
    found = {key: one.grad for key, one in encoder.named_parameters() if one.grad is not None}
    outputs = {key.replace("grad/", "grad."): one for key, one in golden.outputs.items()}
    original = restore(found, REGION_ENCODER)
    replace(golden, outputs=outputs).check_gradients({**original, "obj_downsample.1.bias": bias.grad})


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_regions_equal_the_original(golden, name):
    golden = golden(name)
    encoder, regions, roi = build(golden), unpack(golden.inputs), golden.config["roi"]
    maps = encoder.resnet.body(golden.inputs["image"])
    golden.check("body4", maps)
    options = {"size": roi["output"][0], "scale": roi["spatial_scale"], "samples": roi["sampling_ratio"]}
    boxes = zip(maps, golden.inputs["boxes"], regions.mask, strict=True)
    pooled = [roi_align(one, box[real], aligned=roi["aligned"], **options) for one, box, real in boxes]
    golden.check("roi_align", torch.cat(pooled))


def test_silhouettes_equal_the_original(golden):
    golden = golden("vlbert-fastrcnn")
    encoder, regions = build(golden), unpack(golden.inputs)
    mask = regions.mask
    features = encoder(golden.inputs["image"], replace(regions, silhouettes=golden.inputs["segms"]))
    golden.check("obj_reps_raw_with_masks", features[mask], mask)
    golden.check("obj_reps_with_masks", project(golden, features, regions)[0][mask], mask)


def test_polygons_are_filled_as_in_the_original(goldens):
    about = json.loads((goldens / f"{MISC}.json").read_text())["instance_mask"]
    polygon, box, mask = (np.array(about[name], float) for name in ("polygon", "box", "mask"))
    assert np.array_equal(silhouette([polygon], box, cells=len(mask)), mask)
    assert np.array_equal(silhouette([polygon[::-1]], box, cells=len(mask)), mask)


@pytest.mark.parametrize("name", NAMES)
def test_the_frozen_parameters_are_those_of_the_original(golden, name):
    golden = golden(name)
    encoder = build(golden)
    frozen = {key: one for key, one in encoder.named_parameters() if not one.requires_grad}
    assert set(restore(frozen, REGION_ENCODER)) == set(golden.config["frozen_parameters"])


if EVERY:

    def test_choices_are_seen_from_their_pixels_as_in_the_original(golden):
        """From raw pixels, boxes and silhouettes to what VL-BERT reads of VCR's objects."""
        golden = golden("vlbert-vcr")
        below = "image_feature_extractor."
        own = {key.removeprefix(below): one for key, one in golden.weights.items() if key.startswith(below)}
        golden = replace(golden, weights=own)
        given = golden.inputs
        boxes, mask = given["boxes"][..., :4], given["boxes"][..., 3] > -0.5
        regions = replace(
            unpack({"boxes": boxes, "box_mask": mask, "im_info": given["im_info"]}),
            silhouettes=given["masks"].clamp(min=0),
        )
        features = build(golden)(given["image"], regions)
        golden.check("obj_reps", project(golden, features, regions)[0][mask], mask)

    def test_pictures_get_the_sizes_of_the_original(goldens):
        about = json.loads((goldens / f"{MISC}.json").read_text())["resize"]
        for given, expected in about["cases"]:
            assert DetectorTransform(truncate=True).resized(*given) == tuple(expected)
