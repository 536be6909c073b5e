"""Dataclasses of tensors that can be moved between devices as a whole."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Class = TypeVar("Class", bound=type)
AnyTree = TypeVar("AnyTree", bound="Tree")  # typing.Self does not survive the shape-checking hook


def register_tree(cls: Class) -> Class:
    """Register a dataclass as a pytree, so that torch's functions find the tensors in it."""
    pytree.register_dataclass(cls)
    return cls


class Tree:
    """Mixin for registered dataclasses with the methods that data loaders and trainers call."""

    __slots__ = ()

    def map(self: AnyTree, function: Callable[[Tensor], Tensor]) -> AnyTree:
        """Apply `function` to every tensor, and return the new tree."""
        # None and settings beside the tensors stay as they are.
        return pytree.tree_map_only(Tensor, function, self)  # type: ignore[no-any-return]

    def to(self: AnyTree, device: torch.device | str, *, non_blocking: bool = False) -> AnyTree:
        """Move every tensor."""
        # Names, ids and other settings stay where they are.
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: AnyTree) -> AnyTree:
        return self.map(Tensor.pin_memory)
