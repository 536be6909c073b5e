"""Selects regions from the output of a detector, by any number of rules after a single pass."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diptych.errors import ConfigError
from diptych.nn.boxes import iou
from diptych.nn.roi import clip_boxes, decode_boxes, has_area, nms
from diptych.types import Regions

Mode = Literal["max-class", "per-class", "caffe"]
# The originals use np.arange, whose values differ from 0.4, 0.5, ... in the last bits.
MAX_CLASS_THRESHOLDS = tuple(np.arange(0.3, 1.0, 0.1).tolist())
PER_CLASS_THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.1).tolist())
LEAST_SCORE = 0.2  # as in the originals
CAFFE_THRESHOLD = 0.3  # IoU; bottom-up-attention's NMS
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # dx dy dw dh of the box head; detectron2's BBOX_REG_WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Output of the network for one image.

    Args:
        size: width and height of the image in pixels.
        resized: width and height of the input of the network; boxes are in its pixels.
        boxes: proposals, best first, or given boxes.
        objectness: logits of the proposals; None for given boxes.
        features: features of `boxes`, before the deltas are applied.
        class_logits: the background is last.
        deltas: `dx dy dw dh` of every class except the background.
        attribute_logits: the background is last; None without an attribute head.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    boxes: Float[Tensor, "R 4"]
    objectness: Float[Tensor, " R"] | None
    features: Float[Tensor, "R F"]
    class_logits: Float[Tensor, "R K"]
    deltas: Float[Tensor, "R E"]
    attribute_logits: Float[Tensor, "R A"] | None

    def cpu(self) -> "Detection":
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {name: value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
        return Detection(**values)


@dataclass(frozen=True, slots=True)
class BoxRule:
    """How many boxes to keep, and which original's method selects them.

    - max-class (Vilio, nav13n, LXMERT in PyTorch): the best class of every proposal and its box; suppression
      across classes, with a rising threshold until `least` boxes are left.
    - per-class (the demos of py-bottom-up-attention): every class above 0.2, with suppression per class; a
      proposal can be kept for several classes.
    - caffe (bottom-up-attention): the proposals themselves, ranked by their best score that survives
      suppression in its class. If the number above 0.2 is within the limits, they keep the order of the
      proposals. Difference: boxes are not one pixel larger, as Caffe's are.
    """

    least: int
    most: int
    mode: Mode = "max-class"

    @classmethod
    def parse(cls, text: str, mode: str = "max-class") -> "BoxRule":
        """`36` means exactly 36, `10:100` from 10 to 100.

        Raises:
            ConfigError: the text is no such rule, or the mode is unknown.
        """
        match = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= least <= most:
            raise ConfigError(f"box rule {text!r}: expected a number like 36 or a range like 10:100.")
        if mode not in get_args(Mode):
            raise ConfigError(f"selection {mode!r}: expected one of {', '.join(get_args(Mode))}.")
        return cls(least, most, mode)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}:{self.most}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Selected boxes: rows of the detection, boxes in its pixels, classes and their scores."""

    rows: Int[Tensor, " K"]
    boxes: Float[Tensor, "K 4"]
    labels: Int[Tensor, " K"]
    scores: Float[Tensor, " K"]

    def take(self, chosen: Int[Tensor, " J"] | Bool[Tensor, " K"]) -> "Choice":
        return Choice(self.rows[chosen], self.boxes[chosen], self.labels[chosen], self.scores[chosen])


def select(detection: Detection, rules: Sequence[BoxRule]) -> list[Regions]:
    """The regions that each rule keeps, in pixels of the image, best first.

    There may be fewer than a rule's minimum if the detection has no more. Boxes that are empty in the image
    are dropped with all their values; the original keeps their features, which makes its files inconsistent.
    """
    detection = detection.cpu()
    ways = {"max-class": _by_best_class, "per-class": _by_class, "caffe": _as_caffe}
    chosen = {mode: ways[mode](detection) for mode in {rule.mode for rule in rules}}
    return [_regions(detection, chosen[rule.mode](rule.least, rule.most)) for rule in rules]


def describe(detection: Detection, boxes: Float[Tensor, "R 4"]) -> Regions:
    """The regions of given boxes, in pixels of the image; no box is dropped or moved."""
    detection = detection.cpu()
    scores, labels = _probabilities(detection).max(1)
    rows = torch.arange(len(boxes))
    return _gather(detection, Choice(rows, boxes.cpu().float(), labels, scores))


Way = Callable[[int, int], Choice]


def _by_best_class(detection: Detection) -> Way:
    scores, labels = _probabilities(detection).max(1)
    rows = torch.arange(len(scores))
    return _sweep(Choice(rows, _moved(detection, rows, labels), labels, scores), MAX_CLASS_THRESHOLDS)


def _by_class(detection: Detection) -> Way:
    probabilities = _probabilities(detection)
    # one candidate per pair of proposal and class; `groups` keeps classes from suppressing each other
    rows, labels = (probabilities > LEAST_SCORE).nonzero().T
    choice = Choice(rows, _moved(detection, rows, labels), labels, probabilities[rows, labels])
    return _sweep(choice, PER_CLASS_THRESHOLDS, groups=labels)


def _sweep(choice: Choice, thresholds: Sequence[float], *, groups: Tensor | None = None) -> Way:
    """Raise the threshold until enough boxes are left; the last threshold decides if none is enough."""
    # several rules share the thresholds, and suppression is the slow part
    kept = cache(lambda threshold: nms(choice.boxes, choice.scores, threshold, groups=groups))

    def way(least: int, most: int) -> Choice:
        enough = (threshold for threshold in thresholds if len(kept(threshold)[:most]) >= least)
        return choice.take(kept(next(enough, thresholds[-1]))[:most])

    return way


def _as_caffe(detection: Detection) -> Way:
    probabilities = _probabilities(detection)
    overlap = iou(detection.boxes, detection.boxes) > CAFFE_THRESHOLD
    # Greedy suppression of all classes at once: step n handles the n-th best box of every class, which, if
    # still alive, suppresses the boxes that it overlaps. `alive` is (classes, boxes).
    alive = torch.ones_like(probabilities, dtype=torch.bool).T.contiguous()
    survives = torch.zeros_like(alive)
    for best in probabilities.argsort(dim=0, descending=True, stable=True):
        kept = alive.gather(1, best[:, None])
        survives.scatter_(1, best[:, None], kept)
        alive &= ~(overlap[best] & kept)
    strength = (probabilities.T * survives).amax(0)  # 0 if the box is suppressed in every class
    # The class of a box is its best one, even where another class kept it alive.
    scores, labels = probabilities.max(1)
    choice = Choice(torch.arange(len(scores)), detection.boxes, labels, scores)

    def way(least: int, most: int) -> Choice:
        strong = (strength >= LEAST_SCORE).nonzero()[:, 0]
        # as the original: few or many strong boxes are cut by rank, otherwise the order stays
        ranked = strength.argsort(descending=True, stable=True)
        if least <= len(strong) <= most:
            return choice.take(strong)
        return choice.take(ranked[: least if len(strong) < least else most])

    return way


def _probabilities(detection: Detection) -> Float[Tensor, "R C"]:
    return detection.class_logits.softmax(1)[:, :-1]  # the background counts in the softmax


def _moved(detection: Detection, rows: Tensor, labels: Tensor) -> Float[Tensor, "K 4"]:
    """Boxes of the given rows, refined by the deltas of the given classes."""
    # deltas have four columns per class
    columns = 4 * labels[:, None] + torch.arange(4)
    deltas = detection.deltas[rows[:, None], columns]
    return clip_boxes(decode_boxes(detection.boxes[rows], deltas, weights=BOX_WEIGHTS), detection.resized)


def _regions(detection: Detection, choice: Choice) -> Regions:
    (width, height), (wide, high) = detection.size, detection.resized
    across, down = choice.boxes[:, 0::2] * (width / wide), choice.boxes[:, 1::2] * (height / high)
    boxes = clip_boxes(torch.stack([across, down], -1).flatten(1), detection.size)
    choice = Choice(choice.rows, boxes, choice.labels, choice.scores)
    return _gather(detection, choice.take(has_area(boxes)))


def _gather(detection: Detection, choice: Choice) -> Regions:
    attributes = attribute_scores = None
    if detection.attribute_logits is not None:
        # As in the original: the background is removed before the softmax here, after it for classes.
        best, index = detection.attribute_logits[choice.rows, :-1].softmax(1).max(1)
        attributes, attribute_scores = index.numpy(), best.numpy()
    return Regions(
        features=detection.features[choice.rows].numpy(),
        boxes=choice.boxes.numpy(),
        size=detection.size,
        labels=choice.labels.numpy(),
        scores=choice.scores.numpy(),
        attributes=attributes,
        attribute_scores=attribute_scores,
    )
