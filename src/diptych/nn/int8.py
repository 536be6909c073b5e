"""Linear layers with weights of 8 bits, for processors that have no units for bfloat16.

Only products with weights are of integers; attention, norms and activations stay in single precision.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.errors import ConfigError

NARROW = 32  # layers that read fewer numbers, such as that of a box, cost nothing, and rounding harms them
LARGEST = 127  # of a rounded input. With 255, sums of two products overflow 16 bits on CPUs without VNNI.
SMALLEST = 1e-30  # of a scale: those of constant rows and of weights that are all zero


class Int8Linear(nn.Module):
    """`Linear` with weights rounded to 8 bits per output, and inputs rounded to 7 bits per row.

    Every row has a scale of its own, and integers add up exactly in any order. So a row's result does not
    depend on the rows beside it, as in single precision: neither padding nor the batch changes a score. (The
    dynamic quantization of torch.ao has one scale per batch. It is deprecated.)

    Args:
        plain: the layer to round; it is not changed.
    """

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        weight = plain.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=SMALLEST) / 127
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        # No buffer: the packed tensor belongs to oneDNN, and `Module.to` cannot move it.
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.scale = nn.Buffer(scale)
        self.zeros = nn.Buffer(torch.zeros_like(scale, dtype=torch.int32))
        # Of the rounded weights, so that what is constant in a row adds no error of its own.
        self.sums = nn.Buffer(scale * rounded.sum(1))
        bias = torch.zeros_like(scale) if plain.bias is None else plain.bias.detach().float()
        self.bias = nn.Buffer(bias)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Multiply with the weights.

        Raises:
            ConfigError: gradients are asked for; integers have none.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise ConfigError("the model computes with precision int8, which has no gradients; use 32.")
        rows = x.flatten(0, -2).float()
        if not len(rows):
            return x.new_zeros(*x.shape[:-1], self.out_features)
        # A row is low + step * (whole numbers from 0 to LARGEST).
        low, high = rows.aminmax(dim=1, keepdim=True)
        step = ((high - low) / LARGEST).clamp(min=SMALLEST)
        # Half a step more, because the conversion cuts off: one pass over memory less than rounding.
        whole = torch.addcmul(0.5 - low / step, rows, 1 / step).to(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, 0, self.packed, self.scale, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        # The row's constant part is exact, and carries NaN and infinity on, which whole numbers cannot.
        rows = torch.addcmul(self.bias, low, self.sums).addcmul_(products, step)
        result: Tensor = rows.unflatten(0, x.shape[:-1])
        return result


def to_int8(model: nn.Module) -> int:
    """Replace the linear layers of a model by `Int8Linear`, in place; returns how many were replaced.

    A layer that is used in several places stays one layer.

    Raises:
        ConfigError: this build of torch has no products of 8-bit integers.
    """
    if not hasattr(torch.ops.onednn, "qlinear_pointwise") or not torch.backends.mkldnn.is_available():
        raise ConfigError("precision is int8, but this build of torch lacks oneDNN; use 32 or bf16.")
    made: dict[nn.Module, Int8Linear] = {}
    for name, part in [*model.named_modules(remove_duplicate=False)]:
        # Subclasses may have other weights than they seem to, such as those of nn.MultiheadAttention.
        if type(part) is nn.Linear and part.in_features >= NARROW:
            if part not in made:
                made[part] = Int8Linear(part)
            model.set_submodule(name, made[part])
    return len(made)
