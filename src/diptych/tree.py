"""Dataclasses of tensors that move between devices as one."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Class = TypeVar("Class", bound=type)
Some = TypeVar("Some", bound="Tree")  # typing.Self does not survive the shape-checking hook


def tree(cls: Class) -> Class:
    """Register a dataclass with the pytree registry, so that torch looks inside it."""
    pytree.register_dataclass(cls)
    return cls


class Tree:
    """Gives a registered dataclass what loaders and trainers call."""

    __slots__ = ()

    def map(self: Some, function: Callable[[Tensor], Tensor]) -> Some:
        """The same tree with `function` applied to every tensor."""
        return pytree.tree_map_only(Tensor, function, self)  # type: ignore[no-any-return]

    def to(self: Some, device: torch.device | str, *, non_blocking: bool = False) -> Some:
        """Move every tensor."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: Some) -> Some:
        return self.map(Tensor.pin_memory)
