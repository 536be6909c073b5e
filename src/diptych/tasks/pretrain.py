"""Pre-training: several objectives on one batch (LXMERT), or one drawn for each batch (UNITER)."""

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
    """No targets: the data ask nothing beyond what objectives make up."""

    def __call__(self, examples: Sequence[Example]) -> None:
        return None


class Pretrain(Trainable):
    """The weighted sum of objectives, of all of them or of some drawn for each batch.

    Objectives corrupt a batch in their order: put matching first, so that words and regions are hidden in
    what the pair has become. What a batch is asked depends on the generator alone. Outside of training every
    group is asked, each in a forward pass of its own.

    Args:
        objectives: names to what takes a model and gives an objective.
        weights: factors of the losses; 1 where not named.
        draw: names, or several joined by `+`, to how often they are drawn: UNITER's all-data run on COCO has
            `{matching+alignment: 6, words: 8, features: 4, classes: 4}`. None asks all on every batch.
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
        self.odds = [float(often) for often in draw.values()] if draw else [1.0]
        self._require_known([*self.weights, *(name for group in self.groups for name in group)])
        if min(self.odds) < 0 or not sum(self.odds):
            raise ConfigError(f"task.draw is {draw}; expected shares from 0, and one above.")
        if mute := [group for group in self.groups if not any(self._objective(name).parts for name in group)]:
            raise ConfigError(f"the objectives {mute[0]} of one batch ask for nothing; add one that does.")
        self.reads = frozenset().union(*(self._objective(name).reads for name in self.objectives))
        answers = [one for one in self.objectives.values() if isinstance(one, Answers)]
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
        """Corrupt, encode, and the weighted sum of the losses; `logs` holds each, unweighted."""
        logs: Losses = {}
        for names in self._drawn(generator) if self.training else self.groups:
            logs |= self._ask(model, batch, names, generator)
        loss = self.total(logs)
        return Outcome(loss=loss, logs={name: value.detach() for name, value in logs.items()})

    def _drawn(self, generator: torch.Generator | None) -> list[list[str]]:
        if len(self.groups) == 1:
            return self.groups
        device = "cpu" if generator is None else generator.device
        odds = torch.tensor(self.odds, device=device)
        return [self.groups[int(torch.multinomial(odds, 1, generator=generator))]]

    def losses(self, model: VisionLanguageModel, sample: Sample, names: Sequence[str]) -> Losses:
        """The unweighted losses of some objectives on a sample as it is."""
        asked = [self._objective(name) for name in names]
        encoding = model(sample.inputs, reads=frozenset().union(*(objective.reads for objective in asked)))
        return {
            self._name(name, part): loss
            for name, objective in zip(names, asked, strict=True)
            for part, loss in objective(model, encoding, sample).items()
        }

    def total(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum."""
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
        return self.weights.get(name.split(".")[0], 1)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all losses."""
        every = dict.fromkeys(name for group in self.groups for name in group)
        return tuple(self._name(name, part) for name in every for part in self._objective(name).parts)

    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """The losses of a batch by name."""
        outcome = self(model, batch, generator)
        found = {name: float(value) for name, value in outcome.logs.items()}
        finite = all(map(math.isfinite, found.values()))
        return Part(count=len(batch), loss=outcome.loss.item(), found=found, finite=finite)

    def summarize(self, parts: Sequence[Part], targets: Mapping[str, Any]) -> dict[str, float]:
        """The mean of each loss over examples; `loss` is their weighted sum."""
        counts = [part.count for part in parts]
        rows = {name: np.repeat([part.found[name] for part in parts], counts) for name in self.parts}
        means = {name: float(values.mean()) for name, values in rows.items()}
        return {"loss": sum(self._weight(name) * value for name, value in means.items()), **means}

    def higher(self, name: str) -> bool:
        """Never: all measures are losses."""
        return False
