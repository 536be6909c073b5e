"""The one LightningModule: steps over a task, whose randomness depends only on the seed and the position."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from diptych.data.module import DataModule
from diptych.data.sampler import Plan
from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.tasks.base import Task
from diptych.train.averaging import Average, Averaging
from diptych.train.optim import OptimizerFactory
from diptych.train.randomness import reseed
from diptych.train.schedules import Schedule
from diptych.types import Batch, Example


@runtime_checkable
class Companion(Protocol):
    """Looks after one thing while a run goes on; called in the order of the list, on every rank."""

    def start(self, learner: "Learner") -> None: ...

    def after_step(self, learner: "Learner") -> None: ...

    def finish(self, learner: "Learner") -> None: ...


class Learner(LightningModule):
    """Trains `model` under `task` along a plan of positions.

    Every position seeds torch anew from (seed, position, rank), so a run taken up at step n goes on exactly
    as if it had never stopped, and no random state has to be kept.

    Args:
        total_steps: optimizer steps of the whole run.
        reduction: `mean` weighs every example of a step alike, over ranks and accumulated batches; `sum` is
            the mean loss of a batch times its rows (divided by the accumulated batches), as Vilio trains.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        data: DataModule,
        plan: Plan,
        optim: OptimizerFactory,
        schedule: Schedule,
        averaging: Averaging | None,
        total_steps: int,
        reduction: Literal["mean", "sum"],
    ) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.data, self.plan, self.optim, self.schedule = data, plan, optim, schedule
        self.averaging, self.average = averaging, Average()
        self.total_steps, self.reduction = total_steps, reduction
        self.companions: Sequence[Companion] = ()
        self.step = self.start_step = 0
        self.stopping = False
        self.losses: list[tuple[Tensor, int]] = []
        self._restored: Mapping[str, Any] = {}
        self._generator: torch.Generator | None = None
        self._loader: DataLoader[Example] | None = None

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
        return [group["lr"] for group in self.trainer.optimizers[0].param_groups]

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint whose weights are in place; the rest follows once training starts."""
        self.step = self.start_step = state["step"]
        self.average.load_state_dict(state["average"], torch.device("cpu"))
        self._restored = state

    def configure_optimizers(self) -> Optimizer:
        mixed = str(self.trainer.precision).endswith("-mixed")
        return self.optim(self.model, self.task, fused=not mixed)

    def train_dataloader(self) -> DataLoader[Example]:
        return self.data.train_loader(
            self.plan,
            start=self.step * self.plan.accumulate,
            stop=self.total_steps * self.plan.accumulate,
            rank=self.global_rank,
            pin_memory=self.device.type == "cuda",
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def on_train_start(self) -> None:
        self._generator = torch.Generator(device=self.device)
        if restored := self._restored:
            self.trainer.strategy.load_optimizer_state_dict({"optimizer_states": [restored["optimizer"]]})
            self.average.load_state_dict(restored["average"], self.device)
            self.trainer.precision_plugin.load_state_dict(restored["precision"])
            self._restored = {}
        for companion in self.companions:
            companion.start(self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        position = self.start_step * self.plan.accumulate + batch_idx
        portion = self.plan.portion(position, self.global_rank)
        outcome = self.task(self.model, batch, self._seeded(position, self.global_rank))
        if outcome.loss is None:
            raise ConfigError(
                f"example {batch.ids[0]} or one beside it has no label; training needs them all."
            )
        self.losses.append((outcome.loss.detach(), portion.count))
        # Lightning divides by the accumulated batches, and ranks are averaged.
        ranks, parts = self.plan.ranks, self.plan.accumulate
        share = portion.count * ranks * (parts / portion.step_count if self.reduction == "mean" else 1)
        loss: Tensor = outcome.loss * share
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self._rate(group["initial_lr"])
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.step += 1
        if self.averaging is None:
            return
        share = self.averaging.share(self.step, self.total_steps, self.average.count)
        if share is not None:
            self.average.join(self, share)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.plan.accumulate:
            return
        for companion in self.companions:
            companion.after_step(self)
        if self.stopping:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        for companion in self.companions:
            companion.finish(self)

    def close(self) -> None:
        """Let the loader's workers go now; left to the garbage collector they are waited for in vain."""
        self._loader = None

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The task's metrics and the mean `loss` over the validation set, the same on every rank.

        The loss leaves out batches with an unlabeled example; it is NaN when that leaves none.
        """
        if self._loader is None:
            self._loader = self.data.validate_loader(
                rank=self.global_rank, ranks=self.plan.ranks, pin_memory=self.device.type == "cuda"
            )
        self.eval()
        parts: list[tuple[Predictions, float | None, int]] = []
        with self.trainer.precision_plugin.forward_context():
            for number, batch in enumerate(self._loader):
                batch = self.transfer_batch_to_device(batch, self.device, 0)
                outcome = self.task(self.model, batch, self._seeded(number, self.global_rank, 1))
                loss = None if outcome.loss is None else float(outcome.loss)
                parts.append((self.task.decode(outcome.logits, batch), loss, len(batch)))
        self.train()
        parts = [part for share in self._gathered(parts) for part in share]
        losses = [(loss, count) for _, loss, count in parts if loss is not None]
        labeled = sum(count for _, count in losses)
        mean = sum(loss * count for loss, count in losses) / labeled if labeled else float("nan")
        predictions = Predictions.concat([prediction for prediction, *_ in parts])
        if predictions.scores is not None and not np.isfinite(predictions.scores).all():
            raise ConfigError(
                f"scores on the validation set are not finite after step {self.step} of {self.total_steps} "
                f"(learning rate {max(self.rates):.3g}). Try a smaller optim.lr, or look at the features "
                "with `diptych check`."
            )
        return {**self.task.measure(predictions, self.data.targets), "loss": mean}

    def _rate(self, base: float) -> float:
        if self.averaging is None:
            return base * self.schedule(self.step, self.total_steps)
        return self.averaging.rate(self.schedule, self.step, self.total_steps, base)

    def _seeded(self, *numbers: int) -> torch.Generator:
        assert self._generator is not None
        reseed(self._generator, self.plan.seed, *numbers)
        return self._generator

    def _gathered(self, mine: Any) -> list[Any]:
        if self.plan.ranks == 1:
            return [mine]
        everyone: list[Any] = [None] * self.plan.ranks
        torch.distributed.all_gather_object(everyone, mine)
        return everyone
