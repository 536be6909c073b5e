"""Pre-training: all objectives on every batch (LXMERT), or one drawn per batch (UNITER)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.errors import ConfigError, nearest
from diptych.tasks.base import Part, Trainable
from diptych.tasks.objectives import Answers, Grades, MaskedRegions, Objective, Sample
from diptych.types import Batch, Encoding, Example, Outcome, TargetEncoder, VisionLanguageModel

Losses = dict[str, Tensor]
Hits = dict[str, tuple[float, int]]  # by measure: sum of scores, number of predictions
VISUAL = {"obj": "labels", "attr": "attributes", "feat": "features"}  # LXMERT's names of region predictions


@dataclass(frozen=True)
class Unlabeled:
    """Target encoder for data without targets: the objectives create their own."""

    def __call__(self, examples: Sequence[Example]) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What pre-training measures on one batch of a validation set."""

    losses: dict[str, float]
    hits: Hits


class Pretrain(Trainable):
    """Weighted sum of the losses of all objectives, or of a group of them drawn for each batch.

    Objectives corrupt a batch in the given order. Put matching first, so that words and regions are masked in
    the exchanged pairs. The drawn group depends on the generator only. Outside of training, every group runs,
    in one forward pass each.

    Args:
        objectives: for each name, a function of the model that builds the objective.
        weights: factors of the losses by name; others have 1. A list has a factor for each of equal parts
            of the run: LXMERT's paper trains answers with `[0, 2]`, not in the first half and doubly in the
            second. An objective with 0 damages the batch but is not asked. Outside of training, the last
            factor counts.
        draw: for each group, one name or several joined by `+`, its relative frequency. UNITER's all-data run
            on COCO has `{matching+alignment: 6, words: 8, features: 4, classes: 4}`. None runs all objectives
            on every batch.
        visual_losses: predictions of masked regions to keep: `obj` or `labels`, `attr` or `attributes`,
            `feat` or `features`; None keeps all.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        objectives: Mapping[str, Callable[[VisionLanguageModel], Objective]],
        weights: Mapping[str, int | float | Sequence[int | float]] | None = None,
        draw: Mapping[str, int | float] | None = None,
        visual_losses: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.objectives = nn.ModuleDict({name: build(model) for name, build in objectives.items()})
        if visual_losses is not None:
            self._keep_visual([VISUAL.get(name, name) for name in visual_losses])
        self.weights = dict(weights or {})
        # Example: {"matching+alignment": 6, "words": 8} makes the groups [matching, alignment] and [words],
        # of which a step takes the first with the probability 6 / 14.
        self.groups = [group.split("+") for group in draw] if draw else [list(self.objectives)]
        self.odds = [float(frequency) for frequency in draw.values()] if draw else [1.0]
        self._require_known([*self.weights, *(name for group in self.groups for name in group)])
        if empty := [
            name for name, value in self.weights.items() if isinstance(value, Sequence) and not value
        ]:
            raise ConfigError(f"task.weights.{empty[0]} is an empty list; expected at least one factor.")
        if min(self.odds) < 0 or not sum(self.odds):
            raise ConfigError(f"task.draw is {draw}; expected frequencies of at least 0, and one above 0.")
        # `backward` fails without a loss, and in the middle of a run only when such a group is drawn.
        lossless = [group for group in self.groups if not any(self._objective(name).parts for name in group)]
        if lossless:
            raise ConfigError(
                f"the objectives {lossless[0]} of one batch have no loss; add an objective that has one."
            )
        self.reads = self._reads([*self.objectives])
        # A batch has one tensor of targets: that of the first objective with answers.
        answers = {name: one for name, one in self.objectives.items() if isinstance(one, Answers)}
        self.targets: TargetEncoder = next((one.targets for one in answers.values()), Unlabeled())
        self.grouped = frozenset(answers)  # objectives whose accuracy is reported by group

    def _keep_visual(self, names: Sequence[str]) -> None:
        regions = [one for one in self.objectives.values() if isinstance(one, MaskedRegions)]
        known = dict.fromkeys(part for one in regions for part in one.parts)
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(
                f"task.visual_losses names {unknown[0]!r}; the task predicts "
                f"{', '.join(known) or 'nothing'} of regions.{nearest(unknown[0], [*known, *VISUAL])}"
            )
        for one in regions:
            one.keep(names)

    def _require_known(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self.objectives]:
            raise ConfigError(
                f"task names the objective {unknown[0]!r}; it has {', '.join(self.objectives)}."
                f"{nearest(unknown[0], self.objectives)}"
            )

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        """Corrupt and encode the batch and sum the weighted losses; `logs` holds each loss unweighted."""
        logs: Losses = {}
        # Every group in validation: a drawn one would make the loss jump from one validation to the next.
        for names in self._drawn(generator) if self.training else self.groups:
            logs |= self._ask(model, batch, names, generator)
        loss = self.total(logs)
        return Outcome(loss=loss, logs={name: value.detach() for name, value in logs.items()})

    def _drawn(self, generator: torch.Generator | None) -> list[list[str]]:
        if len(self.groups) == 1:
            # Without a draw, no random number is used up.
            return self.groups
        device = "cpu" if generator is None else generator.device  # multinomial() needs both on one device
        odds = torch.tensor(self.odds, device=device)
        return [self.groups[int(torch.multinomial(odds, 1, generator=generator))]]

    def losses(self, model: VisionLanguageModel, sample: Sample, names: Sequence[str]) -> Losses:
        """Return the unweighted losses of some objectives on an already corrupted sample."""
        encoding = model(sample.inputs, reads=self._reads(names))
        return self._losses(model, encoding, sample, names)

    def _reads(self, names: Sequence[str]) -> frozenset[str]:
        return frozenset().union(*(self._objective(name).reads for name in names))

    def total(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the weighted sum of the losses."""
        return torch.stack([self._weight(name) * value for name, value in losses.items()]).sum()

    def _ask(
        self,
        model: VisionLanguageModel,
        batch: Batch,
        names: Sequence[str],
        generator: torch.Generator | None,
    ) -> Losses:
        sample = self._corrupted(batch, names, generator)
        # A weight of 0 must not ask at all: gradients of zero would still let the optimizer decay a head.
        asked = [name for name in names if not self.training or self._weight(name)]
        return self.losses(model, sample, asked)

    def _corrupted(self, batch: Batch, names: Sequence[str], generator: torch.Generator | None) -> Sample:
        targets = None if batch.targets is None else batch.target()
        sample = Sample(inputs=batch.inputs, targets=targets)
        for name in names:
            # In order: masking sees exchanged pairs,
            # and labels of mismatched pairs are known when words are masked.
            sample = self._objective(name).corrupt(sample, generator)
        return sample

    def _losses(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample, names: Sequence[str]
    ) -> Losses:
        return {
            self._name(name, part): loss
            for name in names
            for part, loss in self._objective(name)(model, encoding, sample).items()
        }

    def _grades(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample, names: Sequence[str]
    ) -> dict[str, Grades]:
        return {
            self._name(name, part): graded
            for name in names
            for part, graded in self._objective(name).grade(model, encoding, sample).items()
        }

    def _objective(self, name: str) -> Objective:
        return cast(Objective, self.objectives[name])

    def _name(self, name: str, part: str) -> str:
        # `regions.features`, but only `words`: a single part needs no name of its own.
        return f"{name}.{part}" if len(self._objective(name).parts) > 1 else name

    def _weight(self, name: str) -> int | float:
        weight = self.weights.get(name.split(".")[0], 1)  # the parts of an objective share its weight
        if not isinstance(weight, Sequence):
            return weight
        # Example: [0, 2] has the factor 0 up to half of the run and 2 from there on;
        # `min` catches progress 1.0.
        part = int(self.progress * len(weight)) if self.training else len(weight)
        return weight[min(part, len(weight) - 1)]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all losses."""
        every = dict.fromkeys(name for group in self.groups for name in group)
        return tuple(self._name(name, part) for name in every for part in self._objective(name).parts)

    @torch.no_grad()
    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Return the losses of a batch by name, and how often each part was right."""
        losses, hits = Losses(), Hits()
        for names in self.groups:
            sample = self._corrupted(batch, names, generator)
            encoding = model(sample.inputs, reads=self._reads(names))
            losses |= self._losses(model, encoding, sample, names)
            for name, graded in self._grades(model, encoding, sample, names).items():
                # Counts and not shares, because parts of different size are added up later.
                hits |= _hits(name, graded, batch.groups if name in self.grouped else None)
        values = {name: float(value) for name, value in losses.items()}
        finite = all(map(math.isfinite, values.values()))
        result = Measured(losses=values, hits=hits)
        return Part(count=len(batch), loss=float(self.total(losses)), result=result, finite=finite)

    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        """Average each loss over the examples, and each accuracy over what was predicted.

        `loss` is the weighted sum of the losses. `NAME.accuracy` is the share of right predictions; that of
        answers also by the group of examples, as `answers.accuracy.vqa`. A part that had nothing to predict,
        such as the words of text corpora where only captions are validated, is left out.
        """
        counts = [part.count for part in parts]
        # Batches may differ in size: repeating each batch's loss per example makes this a mean over examples.
        rows = {name: np.repeat([part.result.losses[name] for part in parts], counts) for name in self.parts}
        means = {name: float(values.mean()) for name, values in rows.items()}
        loss = sum(self._weight(name) * value for name, value in means.items())
        hits = _sums([part.result.hits for part in parts])
        # Its loss of 0 would look perfect.
        asked = {name: value for name, value in means.items() if hits.get(f"{name}.accuracy", (0, 1))[1]}
        return {
            "loss": loss,
            **asked,
            **{name: score / count for name, (score, count) in hits.items() if count},
        }

    def higher(self, name: str) -> bool:
        """Return True for an accuracy, False for a loss."""
        return ".accuracy" in name


def _hits(name: str, graded: Grades, groups: Sequence[str | None] | None) -> Hits:
    """Sum of the scores and number of the predictions, of all and by group."""
    scores, rows = graded.scores.tolist(), graded.rows.tolist()
    found = {f"{name}.accuracy": (float(sum(scores)), len(scores))}
    named = [groups[row] for row in rows] if groups is not None else []
    for group in sorted({one for one in named if one is not None}):
        some = [score for score, one in zip(scores, named, strict=True) if one == group]
        found[f"{name}.accuracy.{group}"] = (sum(some), len(some))
    return found


def _sums(parts: Sequence[Hits]) -> Hits:
    names = sorted({name for part in parts for name in part})
    columns = {name: [part[name] for part in parts if name in part] for name in names}
    return {
        name: (sum(score for score, _ in column), sum(count for _, count in column))
        for name, column in columns.items()
    }
