"""Classification head: from a vector to the scores of classes."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.init import init_bert
from diptych.nn.sizes import require_sizes

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class ClassifierHead(nn.Module):
    """Scores of classes: `Linear`, or `Linear, activation, LayerNorm, Linear`, after an optional dropout.

    Args:
        layers: number of Linears, 1 or 2.
        width: width of the hidden layer, as a multiple of `dim`. The originals use 2, and 1 for regions.
        norm: whether the hidden layer has a LayerNorm; Oscar's NLVR2 head has none.
        activation: `gelu` is exact (erf); UNITER's VCR head uses `relu`.
        dropout: rate before the first Linear.
        hidden_dropout: rate before the second Linear, as in VL-BERT.
        samples: number of dropout masks whose scores are averaged in training (multi-sample dropout). Vilio's
            V has 5.
        std: standard deviation of the initial weights. Tasks pass the model's value by default.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        layers: int = 1,
        width: int | float = 2,
        norm: bool = True,
        activation: Literal["gelu", "relu"] = "gelu",
        dropout: int | float = 0.0,
        hidden_dropout: int | float = 0.0,
        samples: int = 1,
        eps: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if layers not in (1, 2):
            raise ConfigError(f"a classifier head has 1 or 2 layers; got layers={layers}.")
        if samples < 1:
            raise ConfigError(
                f"a classifier head averages samples={samples} dropout masks; expected at least 1."
            )
        hidden = round(width * dim)
        require_sizes(dim=dim, classes=classes, width=hidden if layers == 2 else 1)
        self.samples = samples
        self.dropout, self.hidden_dropout = nn.Dropout(dropout), nn.Dropout(hidden_dropout)
        before = [nn.Linear(dim, hidden), ACTIVATIONS[activation]()] if layers == 2 else []
        if before and norm:
            # Behind the activation, as in the heads of BERT's pre-training.
            before.append(nn.LayerNorm(hidden, eps=eps))
        self.layers = nn.Sequential(*before, nn.Linear(hidden if before else dim, classes))
        init_bert(self, std=std)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        if self.training and self.samples > 1:
            # The mean of the scores, and not of the losses; both are the same in evaluation.
            return torch.stack([self._once(x) for _ in range(self.samples)]).mean(0)
        return self._once(x)

    def _once(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        *before, last = self.layers
        x = self.dropout(x)
        for layer in before:
            x = layer(x)
        # With one Linear, nothing is hidden: it has `dropout` before it already.
        scores: Tensor = last(self.hidden_dropout(x) if before else x)
        return scores
