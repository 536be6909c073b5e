"""Optimizers as settings: each function returns a factory that a run calls with its model and task."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from diptych.errors import ConfigError
from diptych.nn import LayerAverage

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, kw_only=True)
class OptimizerFactory:
    """An optimizer that still lacks its parameters.

    Args:
        lr: peak learning rate.
        weight_decay: of matrices and larger; with `decay_all` of norms, biases and all other vectors too.
        head_lr_factor: rate of the task's parameters, and of a `LayerAverage`, relative to the model's.
        layer_decay: rate of a layer relative to the layer above it; None keeps one rate. Layers are the
            numbered members of a `ModuleList`; what a model registers before them counts as one layer below,
            what it registers after them has the full rate. A model may say itself how often a rate is
            shrunk: `layer_powers`, by the first matching start of a parameter's name.
        scale_decay: weight decay follows the rate of a parameter; off, it follows `lr` alone.
        fusable: `build` takes `fused`, which makes a step of a small model on a CPU five times as fast.
    """

    build: Callable[..., Optimizer]
    lr: float
    weight_decay: float
    head_lr_factor: int | float = 1.0
    layer_decay: float | None = None
    scale_decay: bool = True
    decay_all: bool = False
    fusable: bool = False

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optim.lr is {self.lr}; expected a positive learning rate.")
        if self.weight_decay < 0:
            raise ConfigError(f"optim.weight_decay is {self.weight_decay}; expected 0 or more.")

    def __call__(self, model: nn.Module, task: nn.Module, *, fused: bool = True) -> Optimizer:
        """The optimizer of all parameters that want a gradient.

        Args:
            fused: off in mixed precision, where Fabric refuses to clip for an optimizer that might unscale
                gradients itself.

        Raises:
            ConfigError: there are none.
        """
        groups: dict[tuple[float, float], list[Tensor]] = {}
        scales = _layer_scales(model, self.layer_decay)
        averages = [part for part in model.modules() if isinstance(part, LayerAverage)]
        heads = {id(one) for part in averages for one in part.parameters()}
        taken: set[int] = set()
        for module, own in ((model, True), (task, False)):
            plain = set() if self.decay_all else _undecayed(module)
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad or id(parameter) in taken:
                    continue
                taken.add(id(parameter))
                backbone = own and id(parameter) not in heads
                scale = scales[name] if backbone else self.head_lr_factor
                decay = 0.0 if id(parameter) in plain else self.weight_decay
                decay = decay if self.scale_decay else decay / scale
                groups.setdefault((self.lr * scale, decay), []).append(parameter)
        if not groups:
            raise ConfigError(
                "no parameter of the model or the task wants a gradient; nothing can be trained."
            )
        options = {"fused": fused} if self.fusable else {}
        return self.build(
            [
                {"params": params, "lr": lr, "initial_lr": lr, "weight_decay": decay}
                for (lr, decay), params in groups.items()
            ],
            **options,
        )


def adamw(
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """AdamW as torch has it."""
    return _factory(AdamW, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)


def hf_adamw(
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """AdamW as early transformers had it (see `HFAdamW`)."""
    return _factory(HFAdamW, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)


def adam(
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """Adam whose decay is added to the gradient (L2), not decoupled."""
    return _factory(Adam, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)


def paddle_adam(
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """Adam as ERNIE-ViL has it on Paddle: torch's AdamW, but layers that learn slower decay as fast."""
    factory = _factory(AdamW, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)
    return replace(factory, scale_decay=False)


def bert_adam(
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """BertAdam as LXMERT has it: no bias correction, and everything decays by its value before the step."""
    kind = partial(HFAdamW, correct_bias=False, decay_first=True)
    factory = _factory(kind, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)
    return replace(factory, decay_all=True, fusable=False)


def _factory(
    kind: Callable[..., Optimizer],
    lr: float,
    weight_decay: float,
    betas: Iterable[float],
    eps: float,
    head_lr_factor: int | float,
    layer_decay: float | None,
) -> OptimizerFactory:
    return OptimizerFactory(
        build=partial(kind, betas=tuple(betas), eps=eps),
        lr=lr,
        weight_decay=weight_decay,
        head_lr_factor=head_lr_factor,
        layer_decay=layer_decay,
        fusable=kind is not HFAdamW,
    )


class HFAdamW(Optimizer):
    """AdamW of transformers before 4: `p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`.

    Differs from torch's in two places: `eps` is not divided by the bias correction, and the decay is taken
    from the weight after the step.

    Args:
        correct_bias: off, the means of the first steps are left as they are, as in BERT's own Adam.
        decay_first: take the decay from the weight before the step, as there.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        decay_first: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.correct_bias, self.decay_first = correct_bias, decay_first

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not params:
            return
        for parameter in params:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update(step=0, **zeros)
            self.state[parameter]["step"] += 1
        (beta1, beta2), lr = group["betas"], group["lr"]
        gradients = [parameter.grad for parameter in params]
        means = [self.state[parameter]["exp_avg"] for parameter in params]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in params]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        widths = torch._foreach_sqrt(squares)
        torch._foreach_add_(widths, group["eps"])
        counts = [self.state[parameter]["step"] for parameter in params]
        if group["weight_decay"] and self.decay_first:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        sizes = [-lr * self._correction(count, beta1, beta2) for count in counts]
        torch._foreach_addcdiv_(params, means, widths, sizes)
        if group["weight_decay"] and not self.decay_first:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])

    def _correction(self, count: int, beta1: float, beta2: float) -> float:
        return float((1 - beta2**count) ** 0.5 / (1 - beta1**count)) if self.correct_bias else 1.0


def _undecayed(module: nn.Module) -> set[int]:
    """Parameters of norms, and everything with fewer than two dimensions."""
    norms = (
        parameter for part in module.modules() if isinstance(part, NORMS) for parameter in part.parameters()
    )
    vectors = (parameter for parameter in module.parameters() if parameter.ndim < 2)
    return {id(parameter) for source in (norms, vectors) for parameter in source}


def _layer_scales(model: nn.Module, decay: float | None) -> dict[str, float]:
    names = [name for name, _ in model.named_parameters()]
    if decay is None:
        return dict.fromkeys(names, 1.0)
    if callable(powers := getattr(model, "layer_powers", None)):
        starts = powers()
        return {
            name: decay ** next((power for start, power in starts.items() if name.startswith(start)), 0)
            for name in names
        }
    stacks = {name: len(part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    if not stacks:
        raise ConfigError("optim.layer_decay is set, but the model has no numbered layers; leave it null.")
    scales, reached = {}, False
    deepest = max(stacks.values())
    for name in names:
        below = _levels_below_top(name, stacks)
        reached = reached or below is not None
        scales[name] = decay ** (below if below is not None else 0 if reached else deepest)
    return scales


def _levels_below_top(name: str, stacks: dict[str, int]) -> int | None:
    """0 for the top layer of a stack, None outside of all stacks."""
    for found in re.finditer(r"\.(\d+)\.", f".{name}"):
        stack = name[: max(0, found.start() - 1)]
        if stack in stacks:
            return stacks[stack] - 1 - int(found.group(1))
    return None
