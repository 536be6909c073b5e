"""Masked regions: some are hidden or exchanged; the model says what a detector had found there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import init_bert, initial_std
from diptych.tasks.objectives.base import Objective, Sample, average, nothing, transform
from diptych.types import Encoding, PaddedRegions, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionMasking:
    """Which regions are asked for, and what stands in their place. Boxes always stay.

    A hidden region has zeros for features; models with a vector for hidden regions put that.

    Args:
        rate: share of regions that are asked for: 0.15, in DeVLBERT's second half 0.3.
        hidden: of these, the share that is hidden: UNITER 1, ViLBERT and VL-BERT 0.9, LXMERT and Vilio 0.8.
        exchanged: of these, the share that shows a random region of the batch: LXMERT and Vilio 0.1, which
            draw from all data. The others stay as they are.
        at_least_one: ask for one region where chance chose none (UNITER).
        overlap: hide also what overlaps an asked region by more than this IoU: ViLBERT 0.4.
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
        """The regions as the model sees them, and which are asked for; `rows` are the only ones, None all."""
        eligible = regions.mask if rows is None else regions.mask & rows[:, None]
        draw = torch.rand(eligible.shape, generator=generator, device=eligible.device)
        if self.at_least_one:
            none = ~(eligible & (draw < self.rate)).any(1, keepdim=True)
            least = draw.masked_fill(~eligible, 2.0).argmin(1, keepdim=True)
            first = torch.zeros_like(eligible).scatter(1, least, value=True)
            draw = draw.masked_fill(none & eligible & first, 0.0)
        wanted = eligible & (draw < self.rate)
        hidden = wanted & (draw < self.rate * self.hidden)
        exchanged = wanted & ~hidden & (draw < self.rate * (self.hidden + self.exchanged))
        if self.overlap is not None:
            itself = torch.eye(eligible.shape[1], dtype=torch.bool, device=eligible.device)
            near = (overlaps(regions.boxes) > self.overlap) & wanted[:, None] & ~itself
            hidden |= near.any(2) & regions.mask
        features = regions.features
        if self.exchanged:
            real = features[regions.mask]
            pick = torch.randint(
                max(len(real), 1), eligible.shape, generator=generator, device=eligible.device
            )
            features = torch.where(exchanged[..., None], real[pick], features) if len(real) else features
        return replace(regions, features=features.masked_fill(hidden[..., None], 0), hidden=hidden), wanted


def overlaps(boxes: Float[Tensor, "B R 4"]) -> Float[Tensor, "B R R"]:
    """Intersection over union of all boxes of a row; 0 where a box has no area."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return inside / (area[:, :, None] + area[:, None] - inside).clamp(min=1e-12)


Target = Callable[[VisionLanguageModel], nn.Module]


class MaskedRegions(Objective):
    """What was where regions are hidden, in the words of `predict`; the first layers of the head are shared.

    Args:
        predict: names to what takes a model and gives `RegionFeatures`, `RegionLabels`,
            `RegionProbabilities` or another module of their form. Empty: regions are hidden as noise, and
            nothing is asked, as Vilio does.
        norm: whether the shared layers end in a LayerNorm; VL-BERT's do not.
        matched_only: leave torn pairs alone, as ViLBERT does.
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
    ) -> None:
        super().__init__()
        if not model.region_dim:
            raise ConfigError(
                f"{type(model).__name__} gives no region states; leave masked regions out for this model."
            )
        self.masking, self.matched_only = masking or RegionMasking(), matched_only
        self.parts = tuple(predict)
        self.transform = (
            transform(model.region_dim, norm=norm, std=initial_std(model)) if predict else nn.Identity()
        )
        self.predict = nn.ModuleDict({name: target(model) for name, target in predict.items()})
        if not predict:
            self.reads = frozenset()

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        regions = sample.inputs.regions
        assert regions is not None, "a model with region states reads regions"
        rows = sample.intact() if self.matched_only else None
        shown, wanted = self.masking(regions, generator, rows=rows)
        return sample.ask(replace(sample.inputs, regions=shown), regions=regions, wanted=wanted)

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        if not self.predict:
            return {}
        assert encoding.regions is not None
        if sample.regions is None or sample.wanted is None:
            return dict.fromkeys(self.predict, nothing(encoding.regions))
        return {
            name: target(model, self.transform, encoding.regions, sample.regions, sample.wanted)
            for name, target in self.predict.items()
        }


class RegionFeatures(nn.Module):
    """The features of hidden regions, as a mean over features and regions.

    Args:
        feature_dim: width of a feature; not needed with `tied`.
        tied: name of the model's Linear for features whose transpose decodes: `regions.feature` in UNITER.
        loss: `mse` (UNITER) or `smooth_l1` (LXMERT).
        share: None divides by the number of asked regions (UNITER); 0.15 by that share of all real ones,
            whatever the rate (LXMERT).
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
                f"region features are asked with feature_dim={feature_dim}, tied={tied}, loss={loss!r}; "
                "expected one of feature_dim and tied, and 'mse' or 'smooth_l1'."
            )
        self.tied, self.loss, self.share = tied, loss, share
        width = feature_dim if feature_dim is not None else self._weight(model).shape[1]
        self.decoder = None if tied else _decoder(model, width)
        self.bias = nn.Parameter(torch.zeros(width)) if tied else None

    def _weight(self, model: VisionLanguageModel) -> Float[Tensor, "D F"]:
        assert isinstance(model, nn.Module)
        return model.get_parameter(f"{self.tied}.weight")

    def forward(
        self,
        model: VisionLanguageModel,
        first: nn.Module,
        states: Float[Tensor, "B R D"],
        regions: PaddedRegions,
        wanted: Bool[Tensor, "B R"],
    ) -> Float[Tensor, ""]:
        x = first(states[wanted])
        got = self.decoder(x) if self.decoder is not None else x @ self._weight(model) + self.bias
        distance = functional.mse_loss if self.loss == "mse" else functional.smooth_l1_loss
        losses = distance(got.float(), regions.features[wanted].float(), reduction="none").mean(-1)
        return average(losses, wanted) if self.share is None else _over(losses, regions, self.share)


class RegionLabels(nn.Module):
    """The class or the attribute that the detector named; cross entropy times the detector's confidence.

    Labels of -1 ask for nothing. As in LXMERT, the sum is divided by `share` of all real regions.

    Args:
        field: `labels` with `scores` for confidence, or `attributes` with `attribute_scores`.
        everywhere: ask for every region, hidden or not, as LXMERT's code does; its paper asks for hidden ones
            only.
        weighted: False takes every region for certain.
        share: LXMERT and Vilio 0.15, whatever the rate; Hugging Face 1 / 6.67.
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
        wanted: Bool[Tensor, "B R"],
    ) -> Float[Tensor, ""]:
        labels = given(regions, self.field)
        asked = (regions.mask if self.everywhere else wanted) & (labels >= 0)
        scores = self.decoder(first(states[asked])).float()
        losses = functional.cross_entropy(scores, labels[asked], reduction="none")
        if self.weighted:
            confidence = "scores" if self.field == "labels" else "attribute_scores"
            losses = losses * given(regions, confidence)[asked]
        return _over(losses, regions, self.share)


class RegionProbabilities(nn.Module):
    """The detector's probabilities over its classes, background included; mean over asked regions.

    Regions whose probabilities do not sum to one, within 0.1, ask for nothing.

    Args:
        loss: `kl` (ViLBERT); `kl_mean`, also a mean over classes (UNITER's MRC-kl); `cross_entropy` with
            soft labels (VL-BERT's MVRC); `hard` with the most likely class but the first, which is background
            (UNITER's MRC).
        by: `rows` is VL-BERT's mean of means.
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
        wanted: Bool[Tensor, "B R"],
    ) -> Float[Tensor, ""]:
        probabilities = given(regions, "probabilities")
        asked = wanted & ((probabilities.sum(-1) - 1).abs() < 0.1)
        scores = self.decoder(first(states[asked])).float()
        return average(divergence(scores, probabilities[asked], self.loss), asked, by=self.by)


def divergence(
    scores: Float[Tensor, "M C"], probabilities: Float[Tensor, "M C"], loss: str
) -> Float[Tensor, " M"]:
    """One number per region: see `RegionProbabilities`."""
    if loss == "hard":
        return functional.cross_entropy(scores, probabilities[:, 1:].argmax(-1) + 1, reduction="none")
    if loss == "cross_entropy":
        return functional.cross_entropy(scores, probabilities, reduction="none")
    terms = functional.kl_div(scores.log_softmax(-1), probabilities, reduction="none")
    return terms.mean(-1) if loss == "kl_mean" else terms.sum(-1)


def _over(losses: Float[Tensor, " M"], regions: PaddedRegions, share: int | float) -> Float[Tensor, ""]:
    return losses.sum() / (share * regions.mask.sum().clamp(min=1))


def _decoder(model: VisionLanguageModel, classes: int) -> nn.Linear:
    decoder = nn.Linear(model.region_dim, classes)
    init_bert(decoder, std=initial_std(model))
    return decoder


def given(regions: PaddedRegions, field: str) -> Tensor:
    """What the detector said, or an error that tells how to come by it."""
    value: Tensor | None = getattr(regions, field)
    if value is None:
        raise ConfigError(
            f"pre-training asks for the {field} of regions, but the batch has none. Take features whose "
            f"detector gave {field}, and say processor.labels=true."
        )
    return value
