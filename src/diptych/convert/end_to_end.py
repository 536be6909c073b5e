"""The image network of VL-BERT, which its end-to-end checkpoints have beside the transformer."""

from collections.abc import Mapping

from torch import Tensor

from diptych.convert.rules import Drop, Keep, Table, load_into, rename
from diptych.models.end_to_end import RegionEncoder

PREFIX = "image_feature_extractor."
# `layer4` is not in the backbone: VL-BERT runs the last stage on each region, as a head.
PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3")
REGION_ENCODER: Table = (
    *(rename(f"backbone.{part}", f"resnet.{part}") for part in PARTS),
    rename("roi_head_feature_extractor", "resnet.layer4"),
    Drop("head", "a copy of the region head"),
    Drop("obj_downsample", "the projection, which is part of the transformer here"),
    Drop("object_embed", "the class embedding, which no configuration uses"),
    Drop("regularizing_predictor", "the head of a loss on the classes of the regions"),
    *(
        Keep(f"resnet.{norm}.num_batches_tracked", "files of 2017 lack these counters")
        for norm in ("bn1", "layer{}.{}.bn{}", "layer{}.{}.downsample.{}")
    ),
)


def has_image_network(weights: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint of VL-BERT has an image network."""
    return any(name.startswith(f"{PREFIX}backbone.") for name in weights)


def fill_region_encoder(encoder: RegionEncoder, weights: Mapping[str, Tensor], *, where: object) -> None:
    """Fill the image network with weights of an end-to-end checkpoint.

    Raises:
        CheckpointMismatch: the weights have no image network, or another one.
    """
    if any(name.startswith(PREFIX) for name in weights):  # a whole checkpoint, not the network alone
        weights = {
            name.removeprefix(PREFIX): tensor for name, tensor in weights.items() if name.startswith(PREFIX)
        }
    load_into(encoder, weights, REGION_ENCODER, where=where)
