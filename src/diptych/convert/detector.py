"""Detectors: pickles of py-bottom-up-attention, Hugging Face's copy, and C4 models of detectron2.

All of them use the names of detectron2.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from diptych.convert.family import count
from diptych.convert.rules import Drop, Keep, Rule, Table, load_into, rename
from diptych.errors import CheckpointMismatch

# detectron2 puts the last stage into the head of the regions; in a ResNet it is one of four.
STAGES = (
    ("backbone.res2", "resnet.layer1"),
    ("backbone.res3", "resnet.layer2"),
    ("backbone.res4", "resnet.layer3"),
    ("roi_heads.res5", "resnet.layer4"),
)


# `.norm` before its convolution: a pattern takes everything below it, and the first rule wins.
def _block(source: str, target: str) -> tuple[Rule, ...]:
    return (
        *(rename(f"{source}.{{}}.conv{n}.norm", f"{target}.{{}}.bn{n}") for n in (1, 2, 3)),
        *(rename(f"{source}.{{}}.conv{n}", f"{target}.{{}}.conv{n}") for n in (1, 2, 3)),
        rename(f"{source}.{{}}.shortcut.norm", f"{target}.{{}}.downsample.1"),
        rename(f"{source}.{{}}.shortcut", f"{target}.{{}}.downsample.0"),
    )


RPN, BOX = "proposal_generator.rpn_head", "roi_heads.box_predictor"
COUNTERS = ("resnet.bn1", "resnet.layer{}.{}.bn{}", "resnet.layer{}.{}.downsample.{}")
PLAIN: Table = (
    rename("backbone.stem.conv1.norm", "resnet.bn1"),
    rename("backbone.stem.conv1", "resnet.conv1"),
    *(rule for source, target in STAGES for rule in _block(source, target)),
    rename(f"{RPN}.conv", "proposer.conv"),
    rename(f"{RPN}.objectness_logits", "proposer.objectness"),
    rename(f"{RPN}.anchor_deltas", "proposer.deltas"),
    rename(f"{BOX}.cls_score", "predictor.classes"),
    rename(f"{BOX}.bbox_pred", "predictor.deltas"),
    *(Keep(f"{norm}.num_batches_tracked", "only Hugging Face's copy has counters") for norm in COUNTERS),
    Drop("proposal_generator.anchor_generator", "anchors are computed"),
)
ATTRIBUTES = {
    "cls_embedding": "class_vectors",
    "fc_attr": "attribute_hidden",
    "attr_score": "attributes",
}
DETECTOR: Table = (
    *PLAIN,
    *(rename(f"{BOX}.{source}", f"predictor.{target}") for source, target in ATTRIBUTES.items()),
)
WITHOUT_ATTRIBUTES: Table = (
    *PLAIN,
    *(Drop(f"{BOX}.{source}", "the detector has no attribute head") for source in ATTRIBUTES),
)


def sizes_of(weights: Mapping[str, Tensor], *, where: object) -> dict[str, Any]:
    """Read the arguments of a `FasterRcnn` from the shapes; `attributes` only if there is such a head.

    Raises:
        CheckpointMismatch: tensors of a detectron2 detector are missing, or have other dimensions.
    """

    def side(name: str, dimension: int = 0) -> int:
        shape = weights[f"{name}.weight"].shape if f"{name}.weight" in weights else ()
        if len(shape) <= dimension or not shape[dimension]:
            raise CheckpointMismatch(
                f"{where}: {name}.weight is missing or empty; expected a detector with detectron2's names."
            )
        return shape[dimension]

    # A grouped convolution stores the inputs of one group only, so the quotient is the number of groups.
    width, part = side("backbone.res2.0.conv2"), side("backbone.res2.0.conv2", 1)
    if width % part:
        raise CheckpointMismatch(
            f"{where}: backbone.res2.0.conv2 has {width} channels in groups of {part}; expected a multiple."
        )
    sizes = {
        "classes": side(f"{BOX}.cls_score") - 1,  # without the background
        "blocks": tuple(count(weights, f"{source}.{{}}.conv1.") for source, _ in STAGES),
        "stem": side("backbone.stem.conv1"),
        "width": width,
        "outputs": side("backbone.res2.0.conv3"),
        "groups": width // part,
        "rpn_hidden": side(f"{RPN}.conv"),
    }
    if f"{BOX}.attr_score.weight" in weights:
        # Without "no attribute", the last one.
        sizes["attributes"] = side(f"{BOX}.attr_score") - 1
    return sizes


def fill_detector(detector: nn.Module, weights: dict[str, Tensor], *, where: object) -> None:
    """Fill a `FasterRcnn`. If it has no attribute head, that of the file is left out.

    Args:
        weights: what `read_weights` returned for a `.pkl`, a torch file or safetensors.
        where: source of the weights, for error messages.

    Raises:
        CheckpointMismatch: the weights belong to another detector.
    """
    attributes = any(name.startswith("predictor.attributes") for name in detector.state_dict())
    load_into(detector, weights, DETECTOR if attributes else WITHOUT_ATTRIBUTES, where=where)
