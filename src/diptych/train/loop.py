"""The training loop: steps through a plan. Random numbers depend only on the seed and the position."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diptych.data.module import DataModule
from diptych.data.sampler import Steps
from diptych.errors import ConfigError
from diptych.tasks.base import Part, Trainable
from diptych.train.averaging import Average, Averaging
from diptych.train.optim import OptimizerFactory
from diptych.train.randomness import reseed
from diptych.train.schedules import Schedule
from diptych.types import Batch, Example, VisionLanguageModel


# Order of one step: rates from the schedule, batches seeded by position, gradients, clipping, optimizer,
# average of the weights; then the observers: reports, validation, stopping, checkpoint, progress bar.
class Observer:
    """Does something between the steps of a run, on every rank. Observers are called in their order."""

    def start(self, loop: "Loop") -> None:
        """Called before the first step of this call."""

    def after_step(self, loop: "Loop") -> None:
        """Called after each optimizer step."""

    def finish(self, loop: "Loop") -> None:
        """Called after the last step, or after an observer has stopped the run; not after an error."""


class Sealed:
    """Hides a batch from Fabric's wrapper, which copies dataclasses and fails for frozen ones."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Learner(nn.Module):
    """Model and task in one module, which Fabric wraps. Calling it returns the loss of a batch."""

    def __init__(self, model: nn.Module, task: Trainable) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.parts: Mapping[str, Tensor] = {}  # of the last batch

    def forward(self, sealed: Sealed, generator: torch.Generator) -> Tensor:
        outcome = self.task(self.model, sealed.batch, generator)
        loss, self.parts = outcome.loss, outcome.logs
        if loss is None:
            raise ConfigError(
                f"example {sealed.batch.ids[0]} or another one in its batch has no label; training needs a "
                "label for every example. Add labels, or leave out the examples without."
            )
        return loss  # type: ignore[no-any-return]


class Loop:
    """Trains `model` with the loss of `task`, on the batches of a plan.

    Every position seeds torch from (seed, position, rank). A run that resumes at step n therefore continues
    exactly as if it had never stopped, and no random state needs to be stored.

    Args:
        fabric: devices, precision and communication; its processes are launched.
        total_steps: optimizer steps of the whole run.
        reduction: `mean` weighs all examples of a step alike, over ranks and accumulated batches. `sum` is
            the mean loss of a batch times its number of rows, divided by the number of accumulated batches,
            as in Vilio.
        clip: largest L2 norm of all gradients together. None does not clip.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Trainable,
        *,
        fabric: Fabric,
        data: DataModule,
        plan: Steps,
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
        # Fabric cannot clip for an optimizer that unscales fp16 gradients itself, as fused ones do.
        fused = fabric.strategy.precision.precision == "32-true"
        self.module, self.optimizer = fabric.setup(self.learner, optim(model, task, fused=fused))
        self.observers: Sequence[Observer] = ()
        self.step = 0
        self.stopping = False
        # Emptied by `Reporter`, which every run has.
        self.losses: list[tuple[Tensor, int]] = []
        self.parts: list[Mapping[str, Tensor]] = []  # unweighted losses of this rank's batches, by name
        self.norm: Tensor | None = None  # of all gradients in the last step, before they were clipped
        self.drop = 1.0  # factor that results of validations put on the rate
        # Objectives draw from their own generator; dropout draws from torch's global one. Both are seeded.
        self._generator = torch.Generator(device=fabric.device)
        # Kept between validations, because starting loader workers takes seconds.
        self._validation: DataLoader[Example] | None = None

    @property
    def done(self) -> bool:
        """Whether all steps of the run are done."""
        return self.step >= self.total_steps

    @property
    def epochs(self) -> float:
        """Epochs trained so far."""
        return self.step / self.plan.steps_per_epoch

    @property
    def rates(self) -> list[float]:
        """Learning rate of each parameter group in the last step."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The state of the run, from which `load_state_dict` resumes."""
        return {
            "weights": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint, except the weights (see `checkpoint.load_weights`)."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"], self.fabric.device)
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def run(self) -> None:
        """Train until all steps are done or an observer sets `stopping`."""
        batches = iter(self._training_batches())
        try:
            for observer in self.observers:
                observer.start(self)
            # Without steps, the weights are measured and saved as they are.
            for observer in self.observers if not self.total_steps else ():
                observer.after_step(self)
            while not (self.done or self.stopping):
                self._take_step(batches)
                for observer in self.observers:
                    observer.after_step(self)
            for observer in self.observers:
                observer.finish(self)
        finally:
            # Loader workers end when their iterator is deleted. A traceback would keep it alive, and the
            # process would hang at exit while it waits for them.
            del batches
            self._validation = None

    def training_set(self) -> Iterator[Batch]:
        """All training examples once, in their order."""
        return map(self._here, cast(Iterator[Batch], iter(self.data.training_set())))

    def _training_batches(self) -> DataLoader[Example]:
        accumulate = self.plan.accumulate
        return self.data.train_loader(
            self.plan,
            # The plan counts positions, of which a step has `accumulate`.
            start=self.step * accumulate,
            stop=self.total_steps * accumulate,
            rank=self.fabric.global_rank,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _take_step(self, batches: Iterator[Any]) -> None:
        """Do one optimizer step with the gradients of all accumulated batches."""
        # A schedule is a function of the step, so the rate needs no state in the checkpoint.
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(group["initial_lr"])
        self.optimizer.zero_grad()
        # Derived from the step, so a resumed run has the same weights of objectives.
        self.learner.task.progress = self.step / self.total_steps
        accumulate = self.plan.accumulate
        for part in range(accumulate):
            # Ranks exchange gradients once per step, at the last of the accumulated batches.
            with self.fabric.no_backward_sync(self.module, enabled=part + 1 < accumulate):
                self.fabric.backward(self._loss(next(batches), self.step * accumulate + part))
        if self.clip is not None:
            # A loss that is not finite gets a better message from `Reporter`.
            self.norm = self.fabric.clip_gradients(
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
        """Return the share of a batch in the loss of its step."""
        rank, ranks, accumulate = self.fabric.global_rank, self.plan.ranks, self.plan.accumulate
        portion = self.plan.portion(position, rank)
        loss = self.module(Sealed(self._here(batch)), self._seeded(position, rank))
        self.parts.append(self.learner.parts)
        self.losses.append((loss.detach(), portion.count))  # no `item()`, which would wait for the device
        # `ranks` undoes the mean over ranks that DDP takes of gradients. With `mean`, `accumulate` cancels
        # out, and every example gets the weight 1 / step_count.
        share = portion.count * ranks * (accumulate / portion.step_count if self.reduction == "mean" else 1)
        # Example of `mean`: 2 ranks, no accumulation, portions of 3 and 2 examples: shares 3 * 2 / 5 and 2 *
        # 2 / 5. DDP averages the two, so every example counts 1/5.
        weighted: Tensor = loss * share / accumulate
        return weighted

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Compute the task's metrics and the mean `loss` on the validation set; equal on all ranks.

        The loss leaves out batches with an unlabeled example. It is NaN if no batch is left.

        Raises:
            ConfigError: scores are not finite.
        """
        rank, ranks = self.fabric.global_rank, self.plan.ranks
        if self._validation is None:
            pinned = self.fabric.device.type == "cuda"
            self._validation = self.data.validate_loader(rank=rank, ranks=ranks, pin_memory=pinned)
        # The module without DDP, which waits for the other ranks: these may have fewer batches.
        learner = self.learner.eval()
        model = cast(VisionLanguageModel, learner.model)
        parts: list[Part] = []
        with self.fabric.autocast():
            for number, batch in enumerate(self._validation):
                # The 1 keeps these random numbers apart from those of training positions.
                batch, generator = self._here(batch), self._seeded(number, rank, 1)
                parts.append(learner.task.validate(model, batch, generator))
        learner.train()
        # All ranks need all parts: AUROC and the like are no means over ranks,
        # and each decides on stopping itself.
        parts = [part for share in self._gathered(parts) for part in share]
        losses = [(part.loss, part.count) for part in parts if part.loss is not None]
        labeled = sum(count for _, count in losses)
        mean = sum(loss * count for loss, count in losses) / labeled if labeled else float("nan")
        if not all(part.finite for part in parts):
            raise ConfigError(
                f"scores on the validation set are not finite after step {self.step} of {self.total_steps} "
                f"(learning rate {max(self.rates):.3g}). Try a smaller optim.lr, or look for NaN features "
                "with `diptych check`."
            )
        return {**learner.task.summarize(parts, self.data.targets), "loss": mean}

    def _here(self, batch: Batch) -> Batch:
        device = self.fabric.device
        # Without blocking, from pinned memory: the copy runs while the last step still computes.
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def _rate(self, base: float) -> float:
        base *= self.drop
        if self.averaging is None:
            return base * self.schedule(self.step, self.total_steps)
        return self.averaging.rate(self.schedule, self.step, self.total_steps, base)

    def _seeded(self, *numbers: int) -> torch.Generator:
        reseed(self._generator, self.plan.seed, *numbers)
        return self._generator

    def _gathered(self, mine: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        if self.plan.ranks == 1:
            return [mine]
        everyone: list[Any] = [None] * self.plan.ranks
        torch.distributed.all_gather_object(everyone, mine)
        return everyone
