"""Masked regions: some are hidden or exchanged, and the model predicts the detector's output for them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import init_bert, initial_std
from diptych.nn.boxes import iou
from diptych.tasks.objectives.base import (
    Grades,
    Objective,
    Sample,
    average,
    first_layers,
    grades,
    zero_loss,
)
from diptych.types import Encoding, PaddedRegions, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
# Example with rate 0.15, hidden 0.8 and exchanged 0.1: a draw below 0.12 hides the region, one below 0.135
# exchanges it, and one below 0.15 keeps it; from there on the region is not predicted.
class RegionMasking:
    """Chooses the regions to predict, and hides or exchanges their features. Boxes do not change.

    The features of a hidden region are zeros, or the vector that a model has for hidden regions.

    Args:
        rate: share of regions to predict: 0.15, in the second half of DeVLBERT's training 0.3.
        hidden: share of these that is hidden: UNITER 1, ViLBERT and VL-BERT 0.9, LXMERT and Vilio 0.8.
        exchanged: share of these that gets the features of a random region of the batch. LXMERT and Vilio
            have 0.1 and draw from all data. The rest keeps its features.
        at_least_one: predict one region of a row if chance chose none (UNITER).
        overlap: also hide regions whose IoU with a predicted region exceeds this: ViLBERT 0.4.
    """

    rate: int | float = 0.15
    hidden: int | float = 1.0
    exchanged: int | float = 0.0
    at_least_one: bool = False
    overlap: int | float | None = None

    def __post_init__(self) -> None:
        if (
            not 0 <= self.rate <= 1
            or self.hidden < 0
            or self.exchanged < 0
            or self.hidden + self.exchanged > 1
        ):
            raise ConfigError(
                f"regions are masked with rate={self.rate}, hidden={self.hidden}, exchanged="
                f"{self.exchanged}; expected shares from 0 to 1, and hidden and exchanged together at most 1."
            )

    def __call__(
        self,
        regions: PaddedRegions,
        generator: torch.Generator | None,
        *,
        rows: Bool[Tensor, " B"] | None = None,
    ) -> tuple[PaddedRegions, Bool[Tensor, "B R"]]:
        """Return the corrupted regions and the mask of those to predict.

        Args:
            rows: mask of the rows that may be corrupted; None means all.
        """
        # Padding is never predicted: its loss would depend on the batch.
        eligible = regions.mask if rows is None else regions.mask & rows[:, None]
        draw = torch.rand(eligible.shape, generator=generator, device=eligible.device)
        if self.at_least_one:
            none = ~(eligible & (draw < self.rate)).any(1, keepdim=True)
            # Take the region with the smallest draw, which needs no further random number, and set its draw
            # to 0, below any positive rate.
            least = draw.masked_fill(~eligible, 2.0).argmin(1, keepdim=True)
            first = torch.zeros_like(eligible).scatter(1, least, value=True)
            draw = draw.masked_fill(none & eligible & first, 0.0)
        selected = eligible & (draw < self.rate)
        # One uniform number decides both whether a region is predicted and what happens to its features.
        hidden = selected & (draw < self.rate * self.hidden)
        exchanged = selected & ~hidden & (draw < self.rate * (self.hidden + self.exchanged))
        if self.overlap is not None:
            # A region overlaps itself with an IoU of 1, which must not hide those that are to be kept.
            itself = torch.eye(eligible.shape[1], dtype=torch.bool, device=eligible.device)
            near = (iou(regions.boxes, regions.boxes) > self.overlap) & selected[:, None] & ~itself
            hidden |= near.any(2) & regions.mask
        features = regions.features
        if self.exchanged:
            real = features[regions.mask]  # of the whole batch, not only of the row
            pick = torch.randint(
                max(len(real), 1), eligible.shape, generator=generator, device=eligible.device
            )
            # Drawn for all positions, so that the number of random numbers does not depend on the draws.
            features = torch.where(exchanged[..., None], real[pick], features) if len(real) else features
        return replace(regions, features=features.masked_fill(hidden[..., None], 0), hidden=hidden), selected


Target = Callable[[VisionLanguageModel], nn.Module]


class MaskedRegions(Objective):
    """Predicts one or more properties of masked regions; the heads share their first layers.

    Args:
        predict: for each name, a function of the model that builds `RegionFeatures`, `RegionLabels`,
            `RegionProbabilities` or another module with the same interface. If empty, regions are masked as
            noise without a loss, as in Vilio.
        masking: how regions are masked; the default is UNITER's without `at_least_one`.
        norm: whether the shared layers end in a LayerNorm; VL-BERT's do not.
        matched_only: do not mask mismatched pairs, as in ViLBERT.
        whole_image: the first region of every row is the whole picture (`Processor.whole_image`), which is
            neither hidden nor predicted, as in VL-BERT. Its pixels show the holes of the others.
    """

    reads = frozenset({"regions"})

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        predict: Mapping[str, Target],
        masking: RegionMasking | None = None,
        norm: bool = True,
        matched_only: bool = False,
        whole_image: bool = False,
    ) -> None:
        super().__init__()
        if not model.region_dim:
            raise ConfigError(
                f"{type(model).__name__} has no region states; remove masked regions for this model."
            )
        self.masking, self.matched_only = masking or RegionMasking(), matched_only
        self.whole_image = whole_image
        self.parts = tuple(predict)
        self.transform = (
            first_layers(model.region_dim, norm=norm, std=initial_std(model)) if predict else nn.Identity()
        )
        self.predict = nn.ModuleDict({name: target(model) for name, target in predict.items()})
        if not predict:
            self.reads = frozenset()  # without heads, no states are needed

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        regions = sample.inputs.regions
        assert regions is not None, "a model with region states reads regions"
        rows = sample.intact() if self.matched_only else None
        # Without the first region, which is thus no region to ask about for the parts below, either.
        asked = functional.pad(regions.mask[:, 1:], (1, 0)) if self.whole_image else regions.mask
        known = replace(regions, mask=asked)
        shown, selected = self.masking(known, generator, rows=rows)
        inputs = replace(sample.inputs, regions=replace(shown, mask=regions.mask))
        # Labels come from the regions as they were before, so these are kept beside the corrupted ones.
        return sample.ask(inputs, regions=known, selected=selected)

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        if not self.predict:
            return {}
        assert encoding.regions is not None
        # A batch of texts alone has no regions to ask about, and no labels of any.
        if sample.regions is None or sample.selected is None or not sample.regions.mask.any():
            return dict.fromkeys(self.predict, zero_loss(encoding.regions))
        return {
            name: target(model, self.transform, encoding.regions, sample.regions, sample.selected)
            for name, target in self.predict.items()
        }

    def keep(self, names: Collection[str]) -> None:
        """Remove the predictions that are not named. Without any, regions are masked as noise."""
        self.parts = tuple(name for name in self.parts if name in names)
        self.predict = nn.ModuleDict({name: self.predict[name] for name in self.parts})
        if not self.parts:
            # No parameters without a use: DDP would wait for their gradients,
            # and weight decay would shrink them.
            self.transform, self.reads = nn.Identity(), frozenset()

    def grade(self, model: VisionLanguageModel, encoding: Encoding, sample: Sample) -> dict[str, Grades]:
        """Labels, or the most probable classes, of masked regions; those that are shown are easy."""
        found: dict[str, Grades] = {}
        if encoding.regions is None or sample.regions is None or sample.selected is None:
            return found
        if not sample.regions.mask.any():
            return found
        for name, target in self.predict.items():
            if isinstance(target, RegionLabels):
                labels = require_field(sample.regions, target.field)
                asked = sample.selected & (labels >= 0)
                logits = target.decoder(self.transform(encoding.regions[asked]))
                found[name] = grades(logits, labels[asked], asked)
            elif isinstance(target, RegionProbabilities):
                probabilities, asked = target.asked(sample.regions, sample.selected)
                logits = target.decoder(self.transform(encoding.regions[asked]))
                found[name] = grades(logits, probabilities.argmax(-1), asked)
        return found


class RegionFeatures(nn.Module):
    """Predicts the features of masked regions; the loss is a mean over features and regions.

    Args:
        feature_dim: width of a feature; not needed with `tied`.
        tied: name of the model's Linear whose transposed weight decodes features: `regions.feature` in
            UNITER.
        loss: `mse` (UNITER) or `smooth_l1` (LXMERT).
        share: None divides by the number of predicted regions (UNITER). A number divides by that share of all
            real regions, independent of the masking rate; LXMERT has 0.15.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        feature_dim: int | None = None,
        tied: str | None = None,
        loss: str = "mse",
        share: int | float | None = None,
    ) -> None:
        super().__init__()
        if (feature_dim is None) == (tied is None) or loss not in ("mse", "smooth_l1"):
            raise ConfigError(
                f"RegionFeatures has feature_dim={feature_dim}, tied={tied}, loss={loss!r}; expected either "
                "feature_dim or tied, and the loss 'mse' or 'smooth_l1'."
            )
        self.tied, self.loss, self.share = tied, loss, share
        width = feature_dim if feature_dim is not None else self._weight(model).shape[1]
        self.decoder = None if tied else _decoder(model, width)
        self.bias = nn.Parameter(torch.zeros(width)) if tied else None

    def _weight(self, model: VisionLanguageModel) -> Float[Tensor, "D F"]:
        assert isinstance(model, nn.Module)
        # The weight of a Linear from F to D has the shape D x F, so `x @ weight` leads back to features.
        return model.get_parameter(f"{self.tied}.weight")

    def forward(
        self,
        model: VisionLanguageModel,
        first: nn.Module,
        states: Float[Tensor, "B R D"],
        regions: PaddedRegions,
        selected: Bool[Tensor, "B R"],
    ) -> Float[Tensor, ""]:
        # Heads run on the selected regions only, which are few; the loss is the same.
        x = first(states[selected])
        predicted = self.decoder(x) if self.decoder is not None else x @ self._weight(model) + self.bias
        distance = functional.mse_loss if self.loss == "mse" else functional.smooth_l1_loss
        losses = distance(predicted.float(), regions.features[selected].float(), reduction="none").mean(-1)
        return average(losses, selected) if self.share is None else _over(losses, regions, self.share)


class RegionLabels(nn.Module):
    """Predicts the detector's class or attribute; cross entropy, weighted by the detector's confidence.

    Labels of -1 are ignored. As in LXMERT, the sum is divided by `share` times the number of real regions.

    Args:
        classes: number of classes or attributes.
        field: `labels` with `scores` as confidence, or `attributes` with `attribute_scores`.
        everywhere: predict every region, masked or not, as LXMERT's code does. Its paper predicts masked
            regions only.
        weighted: whether to weight by confidence.
        share: LXMERT and Vilio 0.15, independent of the masking rate; Hugging Face 1 / 6.67.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        classes: int,
        field: str = "labels",
        everywhere: bool = True,
        weighted: bool = True,
        share: int | float = 0.15,
    ) -> None:
        super().__init__()
        if field not in ("labels", "attributes"):
            raise ConfigError(f"field is {field!r}; expected 'labels' or 'attributes'.")
        self.field, self.everywhere, self.weighted, self.share = field, everywhere, weighted, share
        self.decoder = _decoder(model, classes)

    def forward(
        self,
        model: VisionLanguageModel,
        first: nn.Module,
        states: Float[Tensor, "B R D"],
        regions: PaddedRegions,
        selected: Bool[Tensor, "B R"],
    ) -> Float[Tensor, ""]:
        labels = require_field(regions, self.field)
        # -1 is padding, or an image whose detector gave no label.
        predicted = (regions.mask if self.everywhere else selected) & (labels >= 0)
        # Not on a GPU, which would have to wait for the answer in every step.
        most, known = int(labels.max()) if labels.is_cpu and labels.numel() else -1, self.decoder.out_features
        if most >= known:
            raise ConfigError(
                f"a region has number {most} in {self.field}, but the objective has {known} classes; set "
                "`classes` of the objective to the detector's number."
            )
        scores = self.decoder(first(states[predicted])).float()
        losses = functional.cross_entropy(scores, labels[predicted], reduction="none")
        if self.weighted:
            confidence = "scores" if self.field == "labels" else "attribute_scores"
            losses = losses * require_field(regions, confidence)[predicted]
        return _over(losses, regions, self.share)


class RegionProbabilities(nn.Module):
    """Predicts the detector's class probabilities, background included; mean over predicted regions.

    Regions whose probabilities do not sum to 1, within 0.1, are ignored.

    Args:
        classes: number of classes with background.
        loss: `kl` is the divergence (ViLBERT). `kl_mean` also averages it over classes (UNITER's MRC-kl).
            `cross_entropy` uses soft labels (VL-BERT's MVRC). `hard` uses the most likely class except the
            first, which is background (UNITER's MRC).
        by: see `average`; VL-BERT uses `rows`.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        classes: int,
        loss: str = "kl",
        by: str = "all",
    ) -> None:
        super().__init__()
        if loss not in ("kl", "kl_mean", "cross_entropy", "hard"):
            raise ConfigError(f"loss is {loss!r}; expected 'kl', 'kl_mean', 'cross_entropy' or 'hard'.")
        self.loss = loss
        self.by = by
        self.decoder = _decoder(model, classes)

    def forward(
        self,
        model: VisionLanguageModel,
        first: nn.Module,
        states: Float[Tensor, "B R D"],
        regions: PaddedRegions,
        selected: Bool[Tensor, "B R"],
    ) -> Float[Tensor, ""]:
        probabilities, predicted = self.asked(regions, selected)
        scores = self.decoder(first(states[predicted])).float()
        return average(divergence(scores, probabilities, self.loss), predicted, by=self.by)

    def asked(
        self, regions: PaddedRegions, selected: Bool[Tensor, "B R"]
    ) -> tuple[Float[Tensor, "M K"], Bool[Tensor, "B R"]]:
        """Return the probabilities of the selected regions that have some, and the mask of these regions."""
        probabilities = require_field(regions, "probabilities")
        # Stores in half precision round; a sum far from 1 means that the detector's output is missing.
        predicted = selected & ((probabilities.sum(-1) - 1).abs() < 0.1)
        return probabilities[predicted], predicted


def divergence(
    scores: Float[Tensor, "M C"], probabilities: Float[Tensor, "M C"], loss: str
) -> Float[Tensor, " M"]:
    """Loss of each region; see `RegionProbabilities`."""
    if loss == "hard":
        # Without column 0, which is background; + 1 counts it again.
        return functional.cross_entropy(scores, probabilities[:, 1:].argmax(-1) + 1, reduction="none")
    if loss == "cross_entropy":
        return functional.cross_entropy(scores, probabilities, reduction="none")
    # torch takes 0 * log 0 as 0, so certain detections are safe.
    terms = functional.kl_div(scores.log_softmax(-1), probabilities, reduction="none")
    return terms.mean(-1) if loss == "kl_mean" else terms.sum(-1)


def _over(losses: Float[Tensor, " M"], regions: PaddedRegions, share: int | float) -> Float[Tensor, ""]:
    # LXMERT scales by 1 / 0.15 and averages over all regions, as if exactly that share were predicted.
    return losses.sum() / (share * regions.mask.sum().clamp(min=1))


def _decoder(model: VisionLanguageModel, classes: int) -> nn.Linear:
    decoder = nn.Linear(model.region_dim, classes)
    init_bert(decoder, std=initial_std(model))
    return decoder


def require_field(regions: PaddedRegions, field: str) -> Tensor:
    """Return a detector output of the regions.

    Raises:
        ConfigError: the regions of the batch do not have it.
    """
    value: Tensor | None = getattr(regions, field)
    if value is None:
        raise ConfigError(
            f"pre-training needs the {field} of regions, but the batch has none. Use features with the "
            f"detector's {field}, and set processor.labels=true."
        )
    return value
