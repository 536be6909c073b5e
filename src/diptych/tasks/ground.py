"""Grounding: which region a phrase refers to (RefCOCO+)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError, FormatError
from diptych.nn import ClassifierHead
from diptych.nn.boxes import iou
from diptych.predictions import Predictions
from diptych.tasks.base import Task, build_head
from diptych.types import Batch, Encoding, Example, PaddedRegions, VisionLanguageModel

PADDED = -1e4  # score of padded regions: finite in half precision, too


@dataclass(frozen=True)
class GoldBox:
    """Converts targets, boxes x1 y1 x2 y2 in pixels, to a tensor."""

    def __call__(self, examples: Sequence[Example]) -> Float[Tensor, "N 4"] | None:
        if any(example.target is None for example in examples):
            return None
        return torch.tensor([self._box(example) for example in examples], dtype=torch.float32)

    def mirrored(self, example: Example, last: float) -> Example:
        """The example with its target mirrored.

        Args:
            last: place of the last column of the picture, which the first one takes.
        """
        if example.target is None:
            return example
        x1, y1, x2, y2 = self._box(example)
        return replace(example, target=(last - x2, y1, last - x1, y2))

    def _box(self, example: Example) -> list[float]:
        box = np.asarray(example.target, dtype=object)  # any other type would convert invalid values
        if box.shape != (4,) or not all(isinstance(value, int | float | np.number) for value in box):
            raise FormatError(
                f"example {example.id} has the target {example.target!r}; expected a box x1 y1 x2 y2 "
                "in pixels."
            )
        return [float(value) for value in box]


class Ground(Task):
    """Scores every region and predicts the box of the best one.

    A region is right if its box overlaps the gold box by at least `threshold` (intersection over union).

    Args:
        head: function of the width of region states and the number of outputs (1) that builds the head.
        loss: `bce` is the binary cross entropy of every region, averaged over all regions. `ce` is cross
            entropy over the regions of an example against the one with the largest overlap, averaged over the
            examples that have a right region.
    """

    reads = frozenset({"regions"})

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        loss: str = "bce",
        threshold: int | float = 0.5,
    ) -> None:
        super().__init__()
        if loss not in ("bce", "ce"):
            raise ConfigError(f"task.loss is {loss!r}; expected 'bce' or 'ce'.")
        if not model.region_dim:
            raise ConfigError(f"grounding needs region states; {type(model).__name__} provides none.")
        self.targets = GoldBox()
        self.head = build_head(head, model, model.region_dim, 1)
        self.kind, self.threshold = loss, threshold

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N R"]:
        assert encoding.regions is not None
        logits: Tensor = self.head(encoding.regions).squeeze(-1)
        # Not minus infinity: a row of padding alone would make a softmax of NaN.
        return logits.masked_fill(~_regions(batch).mask, PADDED)

    def loss(self, logits: Float[Tensor, "N R"], batch: Batch) -> Float[Tensor, ""]:
        regions, logits = _regions(batch), logits.float()
        gold = batch.target() / regions.sizes.repeat(1, 2)  # pixels to [0, 1], like the regions' boxes
        # The boxes of padded regions mean nothing; they must never be right.
        overlap = iou(regions.boxes, gold[:, None]).squeeze(-1).masked_fill(~regions.mask, 0)
        right = overlap >= self.threshold
        if self.kind == "bce":
            each = functional.binary_cross_entropy_with_logits(logits, right.float(), reduction="none")
            return (each * regions.mask).sum() / regions.mask.sum().clamp(min=1)
        # Examples whose detector missed the object teach nothing about choosing among regions.
        known = right.any(-1)
        each = functional.cross_entropy(logits, overlap.argmax(-1), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def decode(self, logits: Float[Tensor, "N R"], batch: Batch) -> Predictions:
        """Return the best box in pixels, and the number of its region as the answer."""
        regions, best = _regions(batch), logits.argmax(-1)
        # Back to pixels, in which the official boxes are.
        boxes = regions.boxes[torch.arange(len(best), device=best.device), best] * regions.sizes.repeat(1, 2)
        return Predictions(
            ids=batch.ids,
            boxes=boxes.double().cpu().numpy(),
            answers=tuple(map(str, best.tolist())),
            form="boxes",
        )

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics import measure_boxes

        return measure_boxes(predictions, targets)


def _regions(batch: Batch) -> PaddedRegions:
    assert batch.inputs.regions is not None
    return batch.inputs.regions
