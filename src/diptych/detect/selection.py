"""Which of a detector's findings become the regions of a picture: any number of rules after one pass."""

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
# As NumPy's arange gives them, which is what the originals go through.
MAX_CLASS_THRESHOLDS = tuple(np.arange(0.3, 1.0, 0.1).tolist())
PER_CLASS_THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.1).tolist())
LEAST_SCORE = 0.2
CAFFE_THRESHOLD = 0.3
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """All that one pass computes for one picture.

    Args:
        size: width and height of the picture in pixels.
        resized: width and height of what the network saw, in whose pixels the boxes are.
        boxes: proposals, best first, or the boxes that were given.
        objectness: logits of the proposals; None for given boxes.
        features: of the boxes, not of what the deltas make of them.
        class_logits: background last.
        deltas: `dx dy dw dh` of every class but the background.
        attribute_logits: background last; None without attribute head.
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
        values |= {name: one.cpu() for name, one in values.items() if isinstance(one, Tensor)}
        return Detection(**values)


@dataclass(frozen=True, slots=True)
class BoxRule:
    """How many boxes to keep, and by which of the originals' ways.

    - max-class (Vilio, nav13n, LXMERT in torch): the best class of every proposal and its box; suppression
      across classes, ever more tolerant until `least` are left.
    - per-class (the demos of py-bottom-up-attention): every class above 0.2, suppressed class by class; a
      proposal may come back under several classes.
    - caffe (bottom-up-attention): the proposals themselves, by their best score that survives suppression in
      its class; all above 0.2, within the limits, and then in the order of the proposals. Differs: without
      Caffe's extra pixel.
    """

    least: int
    most: int
    mode: Mode = "max-class"

    @classmethod
    def parse(cls, text: str, mode: str = "max-class") -> "BoxRule":
        """`36` means exactly 36, `10:100` from 10 to 100.

        Raises:
            ConfigError: another text or mode.
        """
        found = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= least <= most:
            raise ConfigError(f"box rule {text!r}: expected a number like 36 or a range like 10:100.")
        if mode not in get_args(Mode):
            raise ConfigError(f"selection {mode!r}: expected one of {', '.join(get_args(Mode))}.")
        return cls(least, most, mode)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}:{self.most}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Boxes chosen: rows of the detection, boxes in its pixels, classes and their scores."""

    rows: Int[Tensor, " K"]
    boxes: Float[Tensor, "K 4"]
    labels: Int[Tensor, " K"]
    scores: Float[Tensor, " K"]

    def take(self, chosen: Int[Tensor, " J"] | Bool[Tensor, " K"]) -> "Choice":
        return Choice(self.rows[chosen], self.boxes[chosen], self.labels[chosen], self.scores[chosen])


def select(detection: Detection, rules: Sequence[BoxRule]) -> list[Regions]:
    """The regions that each rule keeps, in pixels of the picture, best first.

    May be fewer than a rule's least where the picture does not yield more. Boxes that are empty in the
    picture are dropped with everything that belongs to them; the original keeps their features, which makes
    its files unreadable.
    """
    detection = detection.cpu()
    ways = {"max-class": _by_best_class, "per-class": _by_class, "caffe": _as_caffe}
    chosen = {mode: ways[mode](detection) for mode in {rule.mode for rule in rules}}
    return [_regions(detection, chosen[rule.mode](rule.least, rule.most)) for rule in rules]


def describe(detection: Detection, boxes: Float[Tensor, "R 4"]) -> Regions:
    """The regions of given boxes, in pixels of the picture: none dropped, none moved."""
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
    rows, labels = (probabilities > LEAST_SCORE).nonzero().T
    choice = Choice(rows, _moved(detection, rows, labels), labels, probabilities[rows, labels])
    return _sweep(choice, PER_CLASS_THRESHOLDS, groups=labels)


def _sweep(choice: Choice, thresholds: Sequence[float], *, groups: Tensor | None = None) -> Way:
    """Raise the threshold until enough boxes are left; the last one counts anyway."""
    kept = cache(lambda threshold: nms(choice.boxes, choice.scores, threshold, groups=groups))

    def way(least: int, most: int) -> Choice:
        enough = (threshold for threshold in thresholds if len(kept(threshold)[:most]) >= least)
        return choice.take(kept(next(enough, thresholds[-1]))[:most])

    return way


def _as_caffe(detection: Detection) -> Way:
    probabilities = _probabilities(detection)
    overlap = iou(detection.boxes, detection.boxes) > CAFFE_THRESHOLD
    # All classes at once: the n-th best box of each suppresses what it overlaps, if it is still alive.
    alive = torch.ones_like(probabilities, dtype=torch.bool).T.contiguous()
    survives = torch.zeros_like(alive)
    for best in probabilities.argsort(dim=0, descending=True, stable=True):
        kept = alive.gather(1, best[:, None])
        survives.scatter_(1, best[:, None], kept)
        alive &= ~(overlap[best] & kept)
    strength = (probabilities.T * survives).amax(0)
    scores, labels = probabilities.max(1)
    choice = Choice(torch.arange(len(scores)), detection.boxes, labels, scores)

    def way(least: int, most: int) -> Choice:
        strong = (strength >= LEAST_SCORE).nonzero()[:, 0]
        ranked = strength.argsort(descending=True, stable=True)
        if least <= len(strong) <= most:
            return choice.take(strong)
        return choice.take(ranked[: least if len(strong) < least else most])

    return way


def _probabilities(detection: Detection) -> Float[Tensor, "R C"]:
    return detection.class_logits.softmax(1)[:, :-1]


def _moved(detection: Detection, rows: Tensor, labels: Tensor) -> Float[Tensor, "K 4"]:
    """What the deltas of these classes make of these boxes."""
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
        # The background leaves before the probabilities are made, unlike that of the classes.
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
