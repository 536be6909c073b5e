"""Separates the tensors of a checkpoint into backbone and heads."""

import re
from dataclasses import dataclass, replace

from torch import Tensor

from diptych.convert.rules import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The tensors of a checkpoint, without the prefixes of their names.

    Args:
        prefix: what the file puts before the names of the backbone.
        head_prefix: what the file puts before the names of the heads.
        backbone: tensors of the backbone.
        heads: all other tensors.
        optimizer: names of the state of an optimizer among the weights.
    """

    prefix: str
    head_prefix: str
    backbone: Weights
    heads: Weights
    optimizer: list[str]

    def moved(self, prefixes: tuple[str, ...]) -> "Split":
        """Return a split with some tensors moved from the backbone to the heads.

        This is for parts that a model does not have, such as an unused pooler.
        """
        heads = {name: tensor for name, tensor in self.backbone.items() if name.startswith(prefixes)}
        backbone = {name: tensor for name, tensor in self.backbone.items() if name not in heads}
        return replace(self, backbone=backbone, heads={**self.heads, **heads})

    def missing(self, required: frozenset[str]) -> list[str]:
        """Return the required names that the backbone lacks; of alternatives (`a|b`), one is enough."""
        return sorted(
            # Projects spell some names in different ways, but each file uses one spelling.
            names
            for names in required
            if not any(name in self.backbone for name in names.split("|"))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """Finds the backbone in the files of a family.

    VL-BERT, for example, has `key="word_embeddings.weight"`, `root="vlbert."`,
    `extra_prefixes=("object_linguistic_embeddings.",)` and `head_prefixes=("vlbert.mlm_head.",)`. In a file
    the key ends `model.vlbert.word_embeddings.weight`. So the prefix is `model.vlbert.`, and names become

        model.vlbert.word_embeddings.weight       backbone  vlbert.word_embeddings.weight
        model.vlbert.mlm_head.predictions.bias    heads     vlbert.mlm_head.predictions.bias
        object_linguistic_embeddings.weight       backbone  object_linguistic_embeddings.weight
        final_mlp.1.weight                        heads     final_mlp.1.weight

    Args:
        key: a name that every backbone of the family has exactly once. What precedes it in a file is the
            prefix. `a|b` stands for alternatives, where a family has several published forms.
        root: replacement of the prefix.
        extra_prefixes: other prefixes that belong to the backbone.
        head_prefixes: prefixes of heads inside the backbone, with `root`.
        pattern: pattern of the names of the backbone, for files without prefix.
        optimizer: pattern of the names of an optimizer's state among the weights.
    """

    key: str = "embeddings.word_embeddings.weight"
    root: str = ""
    extra_prefixes: tuple[str, ...] = ()
    head_prefixes: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    optimizer: re.Pattern[str] | None = None

    def split(self, weights: Weights) -> Split | None:
        """Split a file into backbone and heads; None if it has no backbone, or several."""
        optimizer = {
            name for name in weights if self.optimizer is not None and self.optimizer.fullmatch(name)
        }
        lasting = {name: tensor for name, tensor in weights.items() if name not in optimizer}
        keys = self.keys(lasting)
        if len(keys) != 1:  # none is another family; two are two models in one file
            return None
        # Example: `model.visual.conv1.weight` and the key `visual.conv1.weight` give `model.`.
        prefix = next(keys[0].removesuffix(key) for key in self.key.split("|") if keys[0].endswith(key))
        backbone: dict[str, Tensor] = {}
        heads: dict[str, Tensor] = {}
        for name, tensor in lasting.items():
            # Names below the prefix get the root instead of it, so that one table serves all prefixes.
            inside = self._inside(name, prefix)
            own = self.root + name.removeprefix(prefix) if inside else name
            head = own.startswith(self.head_prefixes) if inside else not own.startswith(self.extra_prefixes)
            (heads if head else backbone)[own] = tensor
        # Vilio's D has `model.vil_prediction...` beside `model.bert...`; the original has no `model.` there.
        above = self._above(prefix, heads)
        return Split(
            prefix=prefix,
            head_prefix=above,
            backbone=backbone,
            heads={name.removeprefix(above): tensor for name, tensor in heads.items()},
            optimizer=sorted(optimizer),
        )

    def keys(self, weights: Weights) -> list[str]:
        """Return the names that end with the key."""
        # With the point: `visual_word_embeddings.weight` must not count as `word_embeddings.weight`.
        forms = self.key.split("|")
        return [name for name in weights if any(name == key or name.endswith(f".{key}") for key in forms)]

    def original(self, name: str, *, prefix: str, head_prefix: str, head: bool) -> str:
        """Return the original name of a tensor of `split`; the inverse of the renaming there."""
        # `startswith(())` is False, so families without these prefixes have
        # all heads outside and the rest inside.
        inside = name.startswith(self.head_prefixes) if head else not name.startswith(self.extra_prefixes)
        if inside:
            return prefix + name.removeprefix(self.root)
        return head_prefix + name if head else name

    def _inside(self, name: str, prefix: str) -> bool:
        # Without prefix (Paddle's files), every name would start with it; the pattern tells the heads apart.
        return name.startswith(prefix) if self.pattern is None else bool(self.pattern.match(name))

    def _above(self, prefix: str, heads: Weights) -> str:
        """The prefix of the module around the backbone if heads are in it, too: `model.` of `model.bert.`."""
        # `rfind(".", 0, -1)` skips the last point, which ends the prefix itself.
        above = prefix[: prefix.rfind(".", 0, -1) + 1] if prefix else ""
        return above if not self.head_prefixes and any(name.startswith(above) for name in heads) else ""
