"""Which tensors of a checkpoint are the backbone, and which are heads."""

import re
from dataclasses import dataclass, replace

from torch import Tensor

from diptych.convert.rules import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The tensors of a checkpoint, without the prefixes of their names.

    Args:
        prefix: what the file puts before the names of the backbone.
        head_prefix: what it puts before the names of the heads.
        heads: all that is no part of the backbone.
        optimizer: names that an optimizer left among the weights.
    """

    prefix: str
    head_prefix: str
    backbone: Weights
    heads: Weights
    optimizer: list[str]

    def moved(self, prefixes: tuple[str, ...]) -> "Split":
        """The same with some of the backbone among the heads, for a model that does not read it."""
        heads = {name: one for name, one in self.backbone.items() if name.startswith(prefixes)}
        backbone = {name: one for name, one in self.backbone.items() if name not in heads}
        return replace(self, backbone=backbone, heads={**self.heads, **heads})

    def missing(self, required: frozenset[str]) -> list[str]:
        """The required names that the backbone lacks; `|` stands between names of which one is enough."""
        return sorted(one for one in required if not any(name in self.backbone for name in one.split("|")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """Where the backbone lies in the files of a family.

    VL-BERT, for example, has `key="word_embeddings.weight"`, `root="vlbert."`,
    `extra_prefixes=("object_linguistic_embeddings.",)` and `head_prefixes=("vlbert.mlm_head.",)`. In a file
    the key ends `model.vlbert.word_embeddings.weight`. So the prefix is `model.vlbert.`, and names become

        model.vlbert.word_embeddings.weight       backbone  vlbert.word_embeddings.weight
        model.vlbert.mlm_head.predictions.bias    heads     vlbert.mlm_head.predictions.bias
        object_linguistic_embeddings.weight       backbone  object_linguistic_embeddings.weight
        final_mlp.1.weight                        heads     final_mlp.1.weight

    Args:
        key: a name that every backbone of the family has once; what precedes it in a file is the prefix.
        root: replaces the prefix.
        extra_prefixes: other prefixes that belong to the backbone.
        head_prefixes: prefixes inside the backbone, behind `root`, that belong to heads.
        pattern: what names of the backbone look like in files that have no prefix.
        optimizer: what names of an optimizer look like that lie among the weights.
    """

    key: str = "embeddings.word_embeddings.weight"
    root: str = ""
    extra_prefixes: tuple[str, ...] = ()
    head_prefixes: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    optimizer: re.Pattern[str] | None = None

    def split(self, weights: Weights) -> Split | None:
        """Backbone and heads of a file; None where it has no backbone, or several."""
        optimizer = {
            name for name in weights if self.optimizer is not None and self.optimizer.fullmatch(name)
        }
        lasting = {name: one for name, one in weights.items() if name not in optimizer}
        keys = self.keys(lasting)
        if len(keys) != 1:
            return None
        prefix = keys[0].removesuffix(self.key)
        backbone: dict[str, Tensor] = {}
        heads: dict[str, Tensor] = {}
        for name, one in lasting.items():
            inside = self._inside(name, prefix)
            own = self.root + name.removeprefix(prefix) if inside else name
            head = own.startswith(self.head_prefixes) if inside else not own.startswith(self.extra_prefixes)
            (heads if head else backbone)[own] = one
        above = self._above(prefix, heads)
        return Split(
            prefix=prefix,
            head_prefix=above,
            backbone=backbone,
            heads={name.removeprefix(above): one for name, one in heads.items()},
            optimizer=sorted(optimizer),
        )

    def keys(self, weights: Weights) -> list[str]:
        """The names that end with the key."""
        return [name for name in weights if name == self.key or name.endswith(f".{self.key}")]

    def original(self, name: str, *, prefix: str, head_prefix: str, head: bool) -> str:
        """A name that `split` gave, as it stood in the file."""
        inside = name.startswith(self.head_prefixes) if head else not name.startswith(self.extra_prefixes)
        if inside:
            return prefix + name.removeprefix(self.root)
        return head_prefix + name if head else name

    def _inside(self, name: str, prefix: str) -> bool:
        return name.startswith(prefix) if self.pattern is None else bool(self.pattern.match(name))

    def _above(self, prefix: str, heads: Weights) -> str:
        """The module around the backbone: `model.` of `model.bert.`, where heads lie in it, too."""
        above = prefix[: prefix.rfind(".", 0, -1) + 1] if prefix else ""
        return above if not self.head_prefixes and any(name.startswith(above) for name in heads) else ""
