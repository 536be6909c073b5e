"""From the states of a sequence to one vector."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class FirstToken(nn.Module):
    """`tanh(dense(state of the first token))`, the pooler of BERT."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        dense: Tensor = self.dense(states[:, 0])
        return dense.tanh()


def before_end(states: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """State of the token before the last real one; of a row with a single token, that token's."""
    index = (mask.sum(1) - 2).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), index]
