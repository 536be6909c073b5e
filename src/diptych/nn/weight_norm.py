"""The weight-normalized head of DeVLBERT and of Vilio's D."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.nn.sizes import require_sizes


class WeightNormLinear(nn.Module):
    """A Linear with the weight `scale * direction / norm(direction)`, with one norm for the whole matrix."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs)
        # The scale starts as the norm, so that the weight starts as the plain Linear's.
        self.direction, self.scale = plain.weight, nn.Parameter(plain.weight.detach().norm())
        self.bias = plain.bias
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        # The norm is computed anew in every step, because the direction is trained without a constraint.
        return F.linear(x, self.scale * self.direction / self.direction.norm(), self.bias)


class WeightNormHead(nn.Module):
    """Scores of classes: `Linear, ReLU, dropout, Linear`, both Linears weight-normalized.

    Args:
        width: width of the hidden layer, as a multiple of `dim`.
        dropout: rate between the two Linears.
    """

    def __init__(self, dim: int, classes: int, *, width: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        require_sizes(dim=dim, classes=classes, width=width)
        self.layers = nn.Sequential(
            WeightNormLinear(dim, width * dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            WeightNormLinear(width * dim, classes),
        )

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        scores: Tensor = self.layers(x)
        return scores
