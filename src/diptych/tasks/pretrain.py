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
from diptych.tasks.objectives import Answers, Objective, Sample
from diptych.types import Batch, Example, Outcome, TargetEncoder, VisionLanguageModel

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Unlabeled:
    """Target encoder for data without targets: the objectives create their own."""

    def __call__(self, examples: Sequence[Example]) -> None:
        return None


class Pretrain(Trainable):
    """Weighted sum of the losses of all objectives, or of a group of them drawn for each batch.

    Objectives corrupt a batch in the given order. Put matching first, so that words and regions are masked in
    the exchanged pairs. The drawn group depends on the generator only. Outside of training, every group runs,
    in one forward pass each.

    Args:
        objectives: for each name, a function of the model that builds the objective.
        weights: factors of the losses by name; others have 1.
        draw: for each group, one name or several joined by `+`, its relative frequency. UNITER's all-data run
            on COCO has `{matching+alignment: 6, words: 8, features: 4, classes: 4}`. None runs all objectives
            on every batch.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        objectives: Mapping[str, Callable[[VisionLanguageModel], Objective]],
        weights: Mapping[str, int | float] | None = None,
        draw: Mapping[str, int | float] | None = None,
    ) -> None:
        super().__init__()
        self.objectives = nn.ModuleDict({name: build(model) for name, build in objectives.items()})
        self.weights = dict(weights or {})
        self.groups = [group.split("+") for group in draw] if draw else [list(self.objectives)]
        self.odds = [float(frequency) for frequency in draw.values()] if draw else [1.0]
        self._require_known([*self.weights, *(name for group in self.groups for name in group)])
        if min(self.odds) < 0 or not sum(self.odds):
            raise ConfigError(f"task.draw is {draw}; expected frequencies of at least 0, and one above 0.")
        lossless = [group for group in self.groups if not any(self._objective(name).parts for name in group)]
        if lossless:
            raise ConfigError(
                f"the objectives {lossless[0]} of one batch have no loss; add an objective that has one."
            )
        self.reads = frozenset().union(*(self._objective(name).reads for name in self.objectives))
        # A batch has one tensor of targets: that of the first objective with answers.
        answers = [objective for objective in self.objectives.values() if isinstance(objective, Answers)]
        self.targets: TargetEncoder = answers[0].targets if answers else Unlabeled()

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
        for names in self._drawn(generator) if self.training else self.groups:
            logs |= self._ask(model, batch, names, generator)
        loss = self.total(logs)
        return Outcome(loss=loss, logs={name: value.detach() for name, value in logs.items()})

    def _drawn(self, generator: torch.Generator | None) -> list[list[str]]:
        if len(self.groups) == 1:
            return self.groups
        device = "cpu" if generator is None else generator.device  # multinomial() needs both on one device
        odds = torch.tensor(self.odds, device=device)
        return [self.groups[int(torch.multinomial(odds, 1, generator=generator))]]

    def losses(self, model: VisionLanguageModel, sample: Sample, names: Sequence[str]) -> Losses:
        """Return the unweighted losses of some objectives on an already corrupted sample."""
        objectives = [self._objective(name) for name in names]
        reads = frozenset().union(*(objective.reads for objective in objectives))
        encoding = model(sample.inputs, reads=reads)
        return {
            self._name(name, part): loss
            for name, objective in zip(names, objectives, strict=True)
            for part, loss in objective(model, encoding, sample).items()
        }

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
        targets = None if batch.targets is None else batch.target()
        sample = Sample(inputs=batch.inputs, targets=targets)
        for name in names:
            sample = self._objective(name).corrupt(sample, generator)
        return self.losses(model, sample, names)

    def _objective(self, name: str) -> Objective:
        return cast(Objective, self.objectives[name])

    def _name(self, name: str, part: str) -> str:
        return f"{name}.{part}" if len(self._objective(name).parts) > 1 else name

    def _weight(self, name: str) -> int | float:
        return self.weights.get(name.split(".")[0], 1)  # the parts of an objective share its weight

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all losses."""
        every = dict.fromkeys(name for group in self.groups for name in group)
        return tuple(self._name(name, part) for name in every for part in self._objective(name).parts)

    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Return the losses of a batch by name."""
        outcome = self(model, batch, generator)
        losses = {name: float(value) for name, value in outcome.logs.items()}
        finite = all(map(math.isfinite, losses.values()))
        return Part(count=len(batch), loss=outcome.loss.item(), result=losses, finite=finite)

    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        """Average each loss over the examples; `loss` is the weighted sum."""
        counts = [part.count for part in parts]
        # Batches may differ in size: repeating each batch's loss per example makes this a mean over examples.
        rows = {name: np.repeat([part.result[name] for part in parts], counts) for name in self.parts}
        means = {name: float(values.mean()) for name, values in rows.items()}
        return {"loss": sum(self._weight(name) * value for name, value in means.items()), **means}

    def higher(self, name: str) -> bool:
        """Return False: all measures are losses."""
        return False
