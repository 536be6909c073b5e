"""FixMatch: few labels, and many examples without labels that only have to be judged consistently.

Sohn et al., 2020, https://arxiv.org/abs/2001.07685. Original: nav13n/multimodal-learning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.images import MEAN, STD
from diptych.nn import ClassifierHead, Pooled, Readout
from diptych.nn.views import strong_views, weak_views
from diptych.tasks.classify import Classify, ClassIndex
from diptych.types import Batch, Example, Outcome, VisionLanguageModel

UNLABELED = "unlabeled"  # member of the data (`data.beside`) whose labels are never read


@dataclass(frozen=True)
class KnownClass(ClassIndex):
    """As `ClassIndex`, with the index 0 for unlabeled examples, which no loss reads."""

    def __call__(self, examples: Sequence[Example]) -> Int[Tensor, " N"] | Float[Tensor, "N C"] | None:
        labels = [replace(one, target=self.labels[0]) if _unlabeled(one.id) else one for one in examples]
        return super().__call__(labels)


class FixMatch(Classify):
    """Classification that also learns from examples without labels, the member `unlabeled` of the data.

    The model judges a weak view of their picture. Where it is sure, a strong view of the same picture, with
    the same text, has to get the same class. Predictions are those of `Classify`.

    Args:
        labels: see `Classify`, like all further settings.
        sure: smallest probability of a class that counts; nav13n's threshold.
        temperature: of the probabilities of weak views; smaller is surer.
        unlabeled_weight: factor of the loss of strong views.
        flip: probability that a view is mirrored. 0, because mirrored text cannot be read; nav13n has 0.5.
        operations: of RandAugment in a strong view.
        mean: with `std` the normalization of the pictures, which strong views undo.
    """

    unread = frozenset({UNLABELED})

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        labels: Sequence[str],
        sure: int | float = 0.95,
        temperature: int | float = 1.0,
        unlabeled_weight: int | float = 1.0,
        flip: int | float = 0.0,
        operations: int = 2,
        mean: Sequence[int | float] = MEAN,
        std: Sequence[int | float] = STD,
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        threshold: float = 0.5,
        batch_auroc: int | None = None,
    ) -> None:
        super().__init__(
            model,
            labels=labels,
            readout=readout,
            head=head,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            threshold=threshold,
            batch_auroc=batch_auroc,
        )
        if not (0 <= sure <= 1 and temperature > 0 and unlabeled_weight >= 0 and 0 <= flip <= 1):
            raise ConfigError(
                f"task.sure is {sure}, temperature {temperature}, unlabeled_weight {unlabeled_weight} and "
                f"flip {flip}; expected probabilities, a temperature above 0, and a weight from 0."
            )
        if "pixels" not in model.needs:
            raise ConfigError(
                f"FixMatch changes pictures, but {type(model).__name__} reads "
                f"{', '.join(sorted(model.needs))}; use a model of pixels such as concat_bert."
            )
        self.targets = KnownClass(self.labels)
        self.sure, self.temperature, self.unlabeled_weight = sure, temperature, unlabeled_weight
        self.flip, self.operations, self.mean, self.std = flip, operations, tuple(mean), tuple(std)

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        free = torch.tensor([_unlabeled(one) for one in batch.ids], device=_pixels(batch).device)
        if not (self.training and free.any()) or batch.targets is None:
            return super().forward(model, batch, generator)
        known, unknown = (~free).nonzero()[:, 0], free.nonzero()[:, 0]
        weak, strong = self._views(_pixels(batch)[unknown], generator)
        rows = torch.cat([known, unknown, unknown])
        inputs = batch.inputs.map(lambda tensor: tensor[rows])
        inputs = replace(inputs, pixels=torch.cat([_pixels(batch)[known], weak, strong]))
        # In one pass, as the original: batch norm sees the pictures of all three kinds.
        whole = Batch(ids=tuple(batch.ids[row] for row in rows.tolist()), inputs=inputs)
        logits = self.score(model(inputs, reads=self.reads), whole)
        sides = logits.split([len(known), len(unknown), len(unknown)])
        labeled = self.loss(sides[0], replace(batch, targets=batch.target()[known], weights=None))
        unlabeled, share = self._consistency(sides[1], sides[2])
        logs = {"labeled": labeled.detach(), "unlabeled": unlabeled.detach(), "sure": share}
        return Outcome(loss=labeled + self.unlabeled_weight * unlabeled, logits=logits, logs=logs)

    def _views(self, pixels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        weak = weak_views(pixels, flip=self.flip, generator=generator)
        other = weak_views(pixels, flip=self.flip, generator=generator)
        settings: dict[str, Any] = {"operations": self.operations, "mean": self.mean, "std": self.std}
        return weak, strong_views(other, generator=generator, **settings)

    def _consistency(
        self, weak: Float[Tensor, "M C"], strong: Float[Tensor, "M C"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss of strong views against the classes of weak ones, and the share of sure weak ones."""
        certainty, classes = (weak.detach().float() / self.temperature).softmax(-1).max(-1)
        kept = (certainty >= self.sure).float()
        # The mean of all examples: with few sure ones, their loss counts little.
        loss = functional.cross_entropy(strong.float(), classes, reduction="none") * kept
        return loss.mean(), kept.mean()


def _unlabeled(name: str) -> bool:
    return name.startswith(f"{UNLABELED}/")


def _pixels(batch: Batch) -> Tensor:
    assert batch.inputs.pixels is not None  # checked when the task was built
    return batch.inputs.pixels
