"""Vectors that another model made before, read from a store of `diptych embed`."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.fusion import fuse, fused_dim
from diptych.nn.modalities import require, require_width
from diptych.nn.sizes import require_sizes
from diptych.types import EVERYTHING, Encoding, Inputs

SIDES = ("image", "text")


class Embeddings(nn.Module):
    """Returns the parts of stored vectors as the fields of an encoding with the same names.

    The pooled vector is that of the store, else the fusion of the joint vectors, else all parts side by side.
    There is nothing to train: the task has all parameters.

    Args:
        parts: width of each part in their order in the store; a run takes them from there.
        feature_dim: width of all parts together.
        fusion: of the joint vectors, see `diptych.nn.fuse`.
        frozen: accepted, so that settings of a dual encoder fit its embeddings, too; all are frozen.
    """

    text_dim = region_dim = 0
    # A store of vectors is a store of pictures with one region each.
    needs = frozenset({"regions"})

    def __init__(
        self,
        *,
        parts: Mapping[str, int],
        feature_dim: int | None = None,
        fusion: str = "align_concat",
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if strange := [name for name, width in parts.items() if name not in EVERYTHING or width < 1]:
            raise ConfigError(
                f"model.parts has {strange[0]!r} of width {parts[strange[0]]}; expected fields of an "
                "encoding such as pooled, joint_image and joint_text."
            )
        if not parts or feature_dim not in (None, sum(parts.values())):
            raise ConfigError(f"model.parts is {dict(parts)} for vectors of {feature_dim} numbers.")
        if unknown := [name for name in frozen if name not in SIDES]:
            raise ConfigError(f"model.frozen names {unknown[0]!r}; expected image, text or both.")
        self.parts, self.fusion = dict(parts), fusion
        joint = [parts.get(f"joint_{side}", 0) for side in SIDES]
        self.both = all(joint)
        if self.both and joint[0] != joint[1]:
            raise ConfigError(f"the joint vectors are {joint[0]} and {joint[1]} wide; expected equal widths.")
        self.joint_dim = max(joint)
        self.tower_dims = (parts.get("tower_image", 0), parts.get("tower_text", 0))
        # In this order: what the other model itself pooled; what a dual encoder would pool; all that there
        # is.
        self.dim = parts.get("pooled", fused_dim(joint[0], fusion) if self.both else sum(parts.values()))

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        regions = require(self, "regions", inputs.regions)
        require_width(self, regions, feature_dim=sum(self.parts.values()))
        # What stands in place of an item without vectors is not defined.
        stored = regions.features[:, 0].masked_fill(~regions.mask[:, :1], 0)
        found = dict(zip(self.parts, stored.split([*self.parts.values()], dim=-1), strict=True))
        for name in ("joint_image", "joint_text"):
            if name in found:  # half precision in a store leaves them a little longer or shorter
                found[name] = F.normalize(found[name], dim=-1)
        pooled = found.get("pooled", stored)
        if self.both and "pooled" not in found:
            pooled = fuse(found["joint_image"], found["joint_text"], self.fusion)
        fields: dict[str, Tensor] = {**found, "pooled": pooled}
        return Encoding(**{name: one for name, one in fields.items() if name in reads})

    def word_embedding(self) -> None:
        """There are no words."""


class JointEmbeddings(Embeddings):
    """Stored vectors of two towers that know nothing of each other, mapped to one space.

    A layer for each side is trained, such as by `tasks.objectives.Contrast`; the joint vectors have length 1.

    Args:
        parts: as of `Embeddings`; must have `tower_image` and `tower_text`.
        joint: width of the joint vectors.
        dropout: probability by which numbers of the stored vectors are dropped.

    Attributes:
        logit_scale: logarithm of the factor of the cosines.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, int],
        feature_dim: int | None = None,
        fusion: str = "align_concat",
        frozen: Sequence[str] = (),
        joint: int = 256,
        dropout: float | int = 0.1,
    ) -> None:
        super().__init__(parts=parts, feature_dim=feature_dim, fusion=fusion, frozen=frozen)
        require_sizes(joint=joint)
        if not all(self.tower_dims):
            raise ConfigError(
                f"model.parts is {dict(parts)}; expected tower_image and tower_text, which are mapped to one "
                "space. Embed pictures with their texts, by a model of two towers."
            )
        self.joint_dim, self.dim = joint, fused_dim(joint, fusion)
        # Averages of different networks differ in size by magnitudes, so each is normalized first.
        self.image, self.text = (
            nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, joint))
            for width in self.tower_dims
        )
        # The temperature 0.07 of CLIP's paper.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        stored = super().forward(inputs, reads=frozenset({"tower_image", "tower_text"}))
        image = F.normalize(self.image(stored.tower_image), dim=-1)
        text = F.normalize(self.text(stored.tower_text), dim=-1)
        fields = {
            "pooled": fuse(image, text, self.fusion),
            "joint_image": image,
            "joint_text": text,
            "tower_image": stored.tower_image,
            "tower_text": stored.tower_text,
        }
        return Encoding(**{name: one for name, one in fields.items() if name in reads})

    def compare(self, image: Float[Tensor, "I J"], text: Float[Tensor, "K J"]) -> Float[Tensor, "I K"]:
        """Return the logits of all pairs of joint vectors of length 1."""
        return self.logit_scale.exp() * image @ text.T
