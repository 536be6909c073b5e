"""Initial weights."""

import torch
from torch import nn


@torch.no_grad()
def init_bert(module: nn.Module, *, std: float = 0.02) -> None:
    """As BERT does: normal weights, zero biases and padding rows, norms that change nothing.

    Args:
        std: standard deviation of Linear and Embedding weights.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(0, std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            part.weight[part.padding_idx].zero_()
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
