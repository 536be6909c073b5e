"""From the states of a sequence to one vector."""

from jaxtyping import Float
from torch import Tensor, nn


class FirstToken(nn.Module):
    """`tanh(dense(state of the first token))`, the pooler of BERT."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        dense: Tensor = self.dense(states[:, 0])
        return dense.tanh()
