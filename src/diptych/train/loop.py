"""The training loop: steps along a plan, whose randomness depends only on the seed and the position."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diptych.data.module import DataModule
from diptych.data.sampler import Plan
from diptych.errors import ConfigError
from diptych.tasks.base import Part, Trainable
from diptych.train.averaging import Average, Averaging
from diptych.train.optim import OptimizerFactory
from diptych.train.randomness import reseed
from diptych.train.schedules import Schedule
from diptych.types import Batch, Example, VisionLanguageModel


class Observer:
    """Does one thing beside the steps of a run; called in the order of the list, on every rank."""

    def start(self, loop: "Loop") -> None:
        """Before the first step of this call."""

    def after_step(self, loop: "Loop") -> None:
        """After each optimizer step."""

    def finish(self, loop: "Loop") -> None:
        """After the last step, or when an observer has stopped the run; not after an error."""


class Sealed:
    """Carries a batch past Fabric's wrapper, which copies dataclasses and cannot copy frozen ones."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Learner(nn.Module):
    """Model and task as the one module that Fabric wraps; a call returns the loss of a batch."""

    def __init__(self, model: nn.Module, task: Trainable) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, sealed: Sealed, generator: torch.Generator) -> Tensor:
        loss = self.task(self.model, sealed.batch, generator).loss
        if loss is None:
            raise ConfigError(
                f"example {sealed.batch.ids[0]} or one beside it has no label; training needs them all."
            )
        return loss  # type: ignore[no-any-return]


class Loop:
    """Trains `model` under `task` along a plan of positions.

    Every position seeds torch anew from (seed, position, rank), so a run taken up at step n goes on exactly
    as if it had never stopped, and no random state has to be kept.

    Args:
        fabric: devices, precision and communication; its processes are launched.
        total_steps: optimizer steps of the whole run.
        reduction: `mean` weighs every example of a step alike, over ranks and accumulated batches; `sum` is
            the mean loss of a batch times its rows (divided by the accumulated batches), as Vilio trains.
        clip: largest L2 norm of all gradients together; None does not clip.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Trainable,
        *,
        fabric: Fabric,
        data: DataModule,
        plan: Plan,
        optim: OptimizerFactory,
        schedule: Schedule,
        averaging: Averaging | None,
        total_steps: int,
        reduction: Literal["mean", "sum"],
        clip: int | float | None = None,
    ) -> None:
        self.fabric, self.data, self.plan, self.schedule = fabric, data, plan, schedule
        self.averaging, self.average = averaging, Average()
        self.total_steps, self.reduction, self.clip = total_steps, reduction, clip
        self.learner = Learner(model, task).train()
        # Fabric cannot clip for an optimizer that unscales fp16 gradients itself, as fused ones do
        fused = fabric.strategy.precision.precision == "32-true"
        self.module, self.optimizer = fabric.setup(self.learner, optim(model, task, fused=fused))
        self.observers: Sequence[Observer] = ()
        self.step = 0
        self.stopping = False
        self.losses: list[tuple[Tensor, int]] = []
        self._generator = torch.Generator(device=fabric.device)
        self._validation: DataLoader[Example] | None = None

    @property
    def done(self) -> bool:
        return self.step >= self.total_steps

    @property
    def epochs(self) -> float:
        """Epochs trained so far."""
        return self.step / self.plan.steps_per_epoch

    @property
    def rates(self) -> list[float]:
        """Learning rate of each parameter group, as the last step had it."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {
            "weights": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint whose weights are in place."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"], self.fabric.device)
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def run(self) -> None:
        """Train to the end, or until an observer sets `stopping`."""
        batches = iter(self._training_batches())
        try:
            for observer in self.observers:
                observer.start(self)
            while not (self.done or self.stopping):
                self._take_step(batches)
                for observer in self.observers:
                    observer.after_step(self)
            for observer in self.observers:
                observer.finish(self)
        finally:
            # loader workers end with their iterator; held by a traceback, they would be waited for in vain
            del batches
            self._validation = None

    def _training_batches(self) -> DataLoader[Example]:
        accumulate = self.plan.accumulate
        return self.data.train_loader(
            self.plan,
            start=self.step * accumulate,
            stop=self.total_steps * accumulate,
            rank=self.fabric.global_rank,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _take_step(self, batches: Iterator[Any]) -> None:
        """One optimizer step, of as many batches as are accumulated."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(group["initial_lr"])
        self.optimizer.zero_grad()
        accumulate = self.plan.accumulate
        for part in range(accumulate):
            with self.fabric.no_backward_sync(self.module, enabled=part + 1 < accumulate):
                self.fabric.backward(self._loss(next(batches), self.step * accumulate + part))
        if self.clip is not None:
            # a loss that is not finite gets a better message from the observer that reports it
            self.fabric.clip_gradients(
                self.module, self.optimizer, max_norm=self.clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.step += 1
        if self.averaging is None:
            return
        share = self.averaging.share(self.step, self.total_steps, self.average.count)
        if share is not None:
            self.average.join(self.learner, share)

    def _loss(self, batch: Batch, position: int) -> Tensor:
        """The share of a batch in the loss of its step. Ranks are averaged by DDP, batches added up here."""
        rank, ranks, accumulate = self.fabric.global_rank, self.plan.ranks, self.plan.accumulate
        portion = self.plan.portion(position, rank)
        loss = self.module(Sealed(self._here(batch)), self._seeded(position, rank))
        self.losses.append((loss.detach(), portion.count))
        share = portion.count * ranks * (accumulate / portion.step_count if self.reduction == "mean" else 1)
        weighted: Tensor = loss * share / accumulate
        return weighted

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The task's metrics and the mean `loss` over the validation set, the same on every rank.

        The loss leaves out batches with an unlabeled example; it is NaN when that leaves none.
        """
        rank, ranks = self.fabric.global_rank, self.plan.ranks
        if self._validation is None:
            pinned = self.fabric.device.type == "cuda"
            self._validation = self.data.validate_loader(rank=rank, ranks=ranks, pin_memory=pinned)
        learner = self.learner.eval()
        model = cast(VisionLanguageModel, learner.model)
        parts: list[Part] = []
        with self.fabric.autocast():
            for number, batch in enumerate(self._validation):
                batch, generator = self._here(batch), self._seeded(number, rank, 1)
                parts.append(learner.task.validate(model, batch, generator))
        learner.train()
        parts = [part for share in self._gathered(parts) for part in share]
        losses = [(part.loss, part.count) for part in parts if part.loss is not None]
        labeled = sum(count for _, count in losses)
        mean = sum(loss * count for loss, count in losses) / labeled if labeled else float("nan")
        if not all(part.finite for part in parts):
            raise ConfigError(
                f"scores on the validation set are not finite after step {self.step} of {self.total_steps} "
                f"(learning rate {max(self.rates):.3g}). Try a smaller optim.lr, or look at the features "
                "with `diptych check`."
            )
        return {**learner.task.summarize(parts, self.data.targets), "loss": mean}

    def _here(self, batch: Batch) -> Batch:
        device = self.fabric.device
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def _rate(self, base: float) -> float:
        if self.averaging is None:
            return base * self.schedule(self.step, self.total_steps)
        return self.averaging.rate(self.schedule, self.step, self.total_steps, base)

    def _seeded(self, *numbers: int) -> torch.Generator:
        reseed(self._generator, self.plan.seed, *numbers)
        return self._generator

    def _gathered(self, mine: Any) -> list[Any]:
        if self.plan.ranks == 1:
            return [mine]
        everyone: list[Any] = [None] * self.plan.ranks
        torch.distributed.all_gather_object(everyone, mine)
        return everyone
