"""Initial weights as in BERT."""

import torch
from torch import nn

STD = 0.02  # BERT's


@torch.no_grad()
def init_bert(module: nn.Module, *, std: float = STD) -> None:
    """Draw normal weights, and reset biases to zero and LayerNorms to the identity.

    Padding rows of embeddings are drawn like all others, as in the originals; they only get no gradients.

    Args:
        std: standard deviation of Linear and Embedding weights.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(0, std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()
        # Other norms, such as ResNet's, keep what they have loaded.
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()


def initial_std(model: object) -> float:
    """Standard deviation of a model's initial weights; the originals draw their heads with it, too."""
    std: float = getattr(model, "std", STD)
    return std
