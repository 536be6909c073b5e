"""Optimizers. Each function returns a factory, which a run calls with its model and task."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from diptych.errors import ConfigError
from diptych.nn import LayerAverage

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, kw_only=True)
class OptimizerFactory:
    """Builds an optimizer for the parameters of a model and a task.

    Args:
        build: function of parameter groups that builds the optimizer.
        lr: peak learning rate.
        weight_decay: weight decay of matrices and larger tensors. Vectors (norms, biases) have none, except
            with `decay_all`.
        head_lr_factor: learning rate of the task's parameters, and of a `LayerAverage`, relative to `lr`.
        layer_decay: learning rate of a layer relative to the layer above it. None gives all layers the same
            rate. Layers are the numbered members of a `ModuleList`. Parameters that a model registers before
            them count as one layer below; those after them have the full rate. A model may define the powers
            of `layer_decay` itself: its method `layer_powers` maps prefixes of parameter names to powers, and
            the first matching prefix counts.
        scale_decay: scale weight decay with the learning rate of a parameter. If false, it scales with `lr`.
        decay_all: apply weight decay to vectors, too.
        fusable: `build` accepts `fused`, which makes a step of a small model on a CPU five times as fast.

    Raises:
        ConfigError: `lr` is not positive, or `weight_decay` is negative.
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
        """Build the optimizer for all parameters that require a gradient.

        Args:
            fused: use the fused implementation. Set it to false in mixed precision, where Fabric refuses to
                clip for an optimizer that may unscale gradients itself.

        Raises:
            ConfigError: no parameter requires a gradient.
        """
        groups: dict[tuple[float, float], list[Tensor]] = {}
        scales = _layer_scales(model, self.layer_decay)
        # A `LayerAverage` belongs to the model, but is new like a head: it learns at the rate of the head.
        averages = [part for part in model.modules() if isinstance(part, LayerAverage)]
        heads = {id(parameter) for average in averages for parameter in average.parameters()}
        taken: set[int] = set()  # a task may share parameters with the model, such as the word embedding
        for module, own in ((model, True), (task, False)):
            plain = set() if self.decay_all else _undecayed(module)
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad or id(parameter) in taken:
                    continue
                taken.add(id(parameter))
                backbone = own and id(parameter) not in heads
                scale = scales[name] if backbone else self.head_lr_factor
                decay = 0.0 if id(parameter) in plain else self.weight_decay
                # torch multiplies the decay by the group's rate; dividing by the scale undoes that.
                decay = decay if self.scale_decay else decay / scale
                # Equal rates and decays share a group, in the order of registration:
                # the same in every process.
                groups.setdefault((self.lr * scale, decay), []).append(parameter)
        # Groups of equal rate and decay keep the number of fused calls per step small.
        if not groups:
            raise ConfigError(
                "no parameter of the model or the task requires a gradient, so nothing can be trained; set "
                "requires_grad of those to train."
            )
        options = {"fused": fused} if self.fusable else {}
        return self.build(
            [
                # the loop scales `initial_lr` by the schedule into `lr`
                {"params": params, "lr": lr, "initial_lr": lr, "weight_decay": decay}
                for (lr, decay), params in groups.items()
            ],
            **options,
        )


def adamw(
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
    decay_all: bool = False,
) -> OptimizerFactory:
    """AdamW of torch. For the arguments of all functions here see `OptimizerFactory`."""
    factory = _factory(AdamW, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)
    return replace(factory, decay_all=decay_all)


def hf_adamw(
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-6,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
    decay_all: bool = False,
) -> OptimizerFactory:
    """AdamW of the library transformers before version 4 (see `HFAdamW`); VL-BERT has `decay_all`."""
    factory = _factory(HFAdamW, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)
    return replace(factory, decay_all=decay_all)


def sgd(
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
    decay_all: bool = False,
) -> OptimizerFactory:
    """Stochastic gradient descent with momentum; VL-BERT's VCR has `decay_all`."""
    return OptimizerFactory(
        build=partial(SGD, momentum=momentum, nesterov=nesterov),
        lr=lr,
        weight_decay=weight_decay,
        head_lr_factor=head_lr_factor,
        layer_decay=layer_decay,
        decay_all=decay_all,
        fusable=True,
    )


def adam(
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """Adam with L2 regularization: weight decay is added to the gradient instead of being decoupled."""
    return _factory(Adam, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)


def paddle_adam(
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """Adam of ERNIE-ViL on Paddle: AdamW of torch, but weight decay does not shrink with `layer_decay`."""
    factory = _factory(AdamW, lr, weight_decay, betas, eps, head_lr_factor, layer_decay)
    return replace(factory, scale_decay=False)


def bert_adam(
    *,
    lr: float,
    weight_decay: float = 0.01,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-6,
    head_lr_factor: int | float = 1.0,
    layer_decay: float | None = None,
) -> OptimizerFactory:
    """BertAdam of LXMERT: no bias correction, weight decay of all parameters, taken before the step."""
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

    It differs from AdamW of torch in two places. `eps` is added before the bias correction, not after it. The
    decay is computed from the weight after the step.

    Args:
        correct_bias: correct the bias of the means in the first steps. BERT's own Adam does not.
        decay_first: compute the decay from the weight before the step, as BERT's own Adam does.
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
        """Do one step; returns the loss of `closure`, which evaluates the model again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        # A parameter without a gradient does not move at all, not even by weight decay.
        params = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not params:
            return
        for parameter in params:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update(step=0, **zeros)
            self.state[parameter]["step"] += 1
        # The `_foreach` functions treat all tensors of a group in one call: far fewer launches on a GPU.
        (beta1, beta2), lr = group["betas"], group["lr"]
        gradients = [parameter.grad for parameter in params]
        means = [self.state[parameter]["exp_avg"] for parameter in params]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in params]
        # mean += (1 - beta1) * (gradient - mean), which is beta1 * mean + (1 - beta1) * gradient.
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        widths = torch._foreach_sqrt(squares)
        torch._foreach_add_(widths, group["eps"])  # before the bias correction, unlike torch
        counts = [self.state[parameter]["step"] for parameter in params]
        if group["weight_decay"] and self.decay_first:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        # One number per tensor: a parameter that was unused in some steps has its own count.
        sizes = [-lr * self._correction(count, beta1, beta2) for count in counts]
        torch._foreach_addcdiv_(params, means, widths, sizes)
        if group["weight_decay"] and not self.decay_first:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])

    def _correction(self, count: int, beta1: float, beta2: float) -> float:
        return float((1 - beta2**count) ** 0.5 / (1 - beta1**count)) if self.correct_bias else 1.0


def _undecayed(module: nn.Module) -> set[int]:
    """Identities of the parameters of norms, and of all parameters with fewer than two dimensions."""
    # By class. UNITER's original excludes by name, and so decays the norms that are called otherwise.
    norms = (
        parameter for part in module.modules() if isinstance(part, NORMS) for parameter in part.parameters()
    )
    vectors = (parameter for parameter in module.parameters() if parameter.ndim < 2)
    return {id(parameter) for source in (norms, vectors) for parameter in source}


def _layer_scales(model: nn.Module, decay: float | None) -> dict[str, float]:
    """Learning rate of each parameter relative to the full rate, by name."""
    names = [name for name, _ in model.named_parameters()]
    if decay is None:
        return dict.fromkeys(names, 1.0)
    if callable(layer_powers := getattr(model, "layer_powers", None)):
        powers = layer_powers()
        return {
            name: decay ** next((power for prefix, power in powers.items() if name.startswith(prefix)), 0)
            for name in names
        }
    # Two-stream models have several stacks; each counts from its own top.
    stacks = {name: len(part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    if not stacks:
        raise ConfigError(
            f"optim.layer_decay is {decay}, but the model has no numbered layers; set it to null."
        )
    scales, reached = {}, False
    deepest = max(stacks.values())
    # `names` are in the order of registration: parameters before the first stack are embeddings, which get
    # the smallest rate; those after it are poolers and the like, which get the full rate.
    for name in names:
        # Example with 3 layers and decay 0.5: embeddings 0.125, layers 0.25, 0.5 and 1, pooler 1.
        below = _levels_below_top(name, stacks)
        reached = reached or below is not None
        scales[name] = decay ** (below if below is not None else 0 if reached else deepest)
    return scales


def _levels_below_top(name: str, stacks: dict[str, int]) -> int | None:
    """Number of layers above a parameter in its stack: 0 for the top layer, None outside of all stacks."""
    # The point in front lets a stack that is the model itself match; it shifts positions by one.
    for number in re.finditer(r"\.(\d+)\.", f".{name}"):
        stack = name[: max(0, number.start() - 1)]
        if stack in stacks:
            return stacks[stack] - 1 - int(number.group(1))
    return None
