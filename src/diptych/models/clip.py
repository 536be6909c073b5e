"""CLIP and SigLIP: an image tower and a text tower whose vectors are compared.

Radford et al., 2021, https://arxiv.org/abs/2103.00020. Original: openai/CLIP; also mlfoundations/open_clip.
Zhai et al., 2023, https://arxiv.org/abs/2303.15343. Original: google-research/big_vision.

The towers see one modality each, so vectors of pictures and texts can be computed once and compared later.
Differences from the originals: a row is pooled at the last token of its mask, where OpenAI takes the largest
id, so an end token within a text moves nothing; positions of the image follow the size of the pictures.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.attention import AttentionPlaces, Side
from diptych.nn.coattention import Sizes
from diptych.nn.fusion import fuse, fused_dim
from diptych.nn.modalities import require
from diptych.nn.prenorm import PreNormLayer
from diptych.nn.sizes import require_sizes
from diptych.nn.towers import ImageTower, TextTower
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedText

BASE_TEXT = Sizes(dim=512, heads=8, hidden=2048, layers=12)
BASE = Sizes(dim=768, heads=12, hidden=3072, layers=12)
LARGE = Sizes(dim=1024, heads=16, hidden=4096, layers=24)
SO400M = Sizes(dim=1152, heads=16, hidden=4304, layers=27)
TINY = Sizes(dim=48, heads=4, hidden=192, layers=2)


class DualEncoder(nn.Module):
    """Base of CLIP and SigLIP. The joint vectors of an encoding have length 1.

    The pooled vector of a row, for tasks that decide on picture and text together, is made of its joint
    vectors (see `diptych.nn.fuse`). The sum of their product is their cosine, which no linear head can
    compute from `concat`.

    Attributes:
        logit_scale: logarithm of the factor of the cosines.
        logit_bias: added to the scaled cosines; None for CLIP.
    """

    region_dim = 0  # the states of patches are no regions: they have no boxes
    needs = frozenset({"text", "pixels"})
    image: ImageTower
    text: TextTower
    image_projection: nn.Linear | None
    text_projection: nn.Linear
    logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None

    def freeze(self, towers: Sequence[str]) -> None:
        """Keep towers as they are: `image`, `text`; with both, a run trains the head of the task only.

        Raises:
            ConfigError: there is no such tower.
        """
        if unknown := [name for name in towers if name not in ("image", "text")]:
            raise ConfigError(f"model.frozen names {unknown[0]!r}; expected image, text or both.")
        for name in towers:
            # With the tower goes its projection: what it is given would not change any more.
            for part in (getattr(self, name), getattr(self, f"{name}_projection")):
                if part is not None:
                    part.requires_grad_(False)

    def set_widths(self, text_dim: int, joint_dim: int, fusion: str) -> None:
        """Set the widths that a model promises.

        Raises:
            ConfigError: there is no such fusion.
        """
        require_sizes(joint_dim=joint_dim)
        self.fusion, self.joint_dim, self.text_dim = fusion, joint_dim, text_dim
        self.dim = fused_dim(joint_dim, fusion)

    @property
    def tower_dims(self) -> tuple[int, int]:
        """Widths of `Encoding.tower_image` and `.tower_text`."""
        return self.image.norm.normalized_shape[0], self.text.norm.normalized_shape[0]

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        seen = said = image = text = states = None
        # Of a picture alone or a text alone, the other tower does not run.
        if reads & {"pooled", "joint_image", "tower_image"}:
            seen = self.image(require(self, "pixels", inputs.pixels))
            vector = seen if self.image_projection is None else self.image_projection(seen)
            image = F.normalize(vector, dim=-1)
        if reads & {"pooled", "joint_text", "tower_text", "text"}:
            words = require(self, "text", inputs.text)
            # All states cost the whole last layer; the vector alone needs one query of it.
            if "text" in reads:
                states, said = self.text.states(words)
            else:
                said = self.text(words)
            text = F.normalize(self.text_projection(said), dim=-1)
        pooled = None
        # Fused only if it is read: `cross` is as wide as the square of a joint vector.
        if "pooled" in reads and image is not None and text is not None:
            pooled = fuse(image, text, self.fusion)
        return Encoding(
            pooled=pooled,
            text=states,
            joint_image=image if "joint_image" in reads else None,
            joint_text=text if "joint_text" in reads else None,
            tower_image=seen if "tower_image" in reads else None,
            tower_text=said if "tower_text" in reads else None,
        )

    def encode_image(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B J"]:
        """Return the joint vectors of pictures before they are divided by their length."""
        vector: Tensor = self.image(pixels)
        return vector if self.image_projection is None else self.image_projection(vector)

    def encode_text(self, text: PaddedText) -> Float[Tensor, "B J"]:
        """Return the joint vectors of texts before they are divided by their length."""
        vector: Tensor = self.text_projection(self.text(text))
        return vector

    def compare(self, image: Float[Tensor, "I J"], text: Float[Tensor, "K J"]) -> Float[Tensor, "I K"]:
        """Return the logits of all pairs of joint vectors of length 1."""
        # The logarithm is trained, so that the factor stays positive.
        logits = self.logit_scale.exp() * image @ text.T
        return logits if self.logit_bias is None else logits + self.logit_bias

    def attention_places(self) -> AttentionPlaces:
        # Maps of the image are over patches, which are no places of a row, and texts of SigLIP are filled up.
        sides: dict[str, tuple[Side, Side]] = {"text.*": ("text", "text")} if self.text.pad_id is None else {}
        return AttentionPlaces(sides=sides)

    def word_embedding(self) -> nn.Embedding:
        return self.text.words


class Clip(DualEncoder):
    """CLIP: causal text tower, class vector of the image, and a projection of both to the joint space.

    Args:
        text: sizes of the text tower.
        vision: sizes of the image tower.
        joint_dim: width of the joint vectors.
        image_size: side of the pictures in pixels, or (height, width).
        patch: side of a patch in pixels.
        max_positions: largest number of tokens.
        activation: `quick_gelu` for OpenAI's weights; `gelu` for most weights of open_clip.
        fusion: see `DualEncoder`.
        frozen: towers that are not trained, of `image` and `text`.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 49408,
        text: Sizes = BASE_TEXT,
        vision: Sizes = BASE,
        joint_dim: int = 512,
        image_size: int | Sequence[int] = 224,
        patch: int = 32,
        max_positions: int = 77,
        activation: str = "quick_gelu",
        fusion: str = "align_concat",
        frozen: Sequence[str] = (),
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.set_widths(text.dim, joint_dim, fusion)
        self.image = ImageTower(
            vision, image_size=image_size, patch=patch, pool="class", activation=activation, eps=eps
        )
        self.text = TextTower(
            vocab_size, text, max_positions=max_positions, pad_id=None, activation=activation, eps=eps
        )
        # In the original, the projections are matrices without bias.
        self.image_projection = nn.Linear(vision.dim, joint_dim, bias=False)
        self.text_projection = nn.Linear(text.dim, joint_dim, bias=False)
        # The temperature 0.07 of the paper.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        # A softmax over the pairs of a batch ignores what is added to all.
        self.logit_bias = None
        _init(self, text)
        self.freeze(frozen)


class Siglip(DualEncoder):
    """SigLIP and SigLIP 2: every pair of a batch is a decision of its own, with a bias.

    Args:
        text: sizes of the text tower.
        vision: sizes of the image tower; its width is the joint one.
        image_size: side of the pictures in pixels, or (height, width).
        patch: side of a patch in pixels.
        max_positions: number of tokens of every text, padding included.
        pad_id: token that fills texts up; None takes texts as they are, which changes their vectors.
        activation: that of the image tower. Hugging Face computes `gelu_tanh`, timm `gelu`.
        text_activation: that of the text tower; None is the same.
        fusion: see `DualEncoder`.
        frozen: towers that are not trained, of `image` and `text`.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 32000,
        text: Sizes = BASE,
        vision: Sizes = BASE,
        image_size: int | Sequence[int] = 224,
        patch: int = 16,
        max_positions: int = 64,
        pad_id: int | None = 1,
        activation: str = "gelu_tanh",
        text_activation: str | None = None,
        fusion: str = "align_concat",
        frozen: Sequence[str] = (),
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        # Looked up for every text, so a wrong number would fail in the first batch, on a GPU without a name.
        if pad_id is not None and not 0 <= pad_id < vocab_size:
            raise ConfigError(f"model.pad_id is {pad_id}; expected a token below {vocab_size}.")
        self.set_widths(text.dim, vision.dim, fusion)
        self.image = ImageTower(
            vision, image_size=image_size, patch=patch, pool="attention", activation=activation, eps=eps
        )
        self.text = TextTower(
            vocab_size,
            text,
            max_positions=max_positions,
            pad_id=pad_id,
            activation=text_activation or activation,
            eps=eps,
        )
        self.image_projection = None  # the pooled vector of the image is the joint one
        self.text_projection = nn.Linear(text.dim, vision.dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10)))
        # Of N x N pairs only N match: the paper's start lets training begin near that share.
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))
        _init(self, text)
        self.freeze(frozen)


@torch.no_grad()
def _init(model: DualEncoder, sizes: Sizes) -> None:
    """Draw the initial weights of OpenAI's CLIP; blocks of the image tower keep torch's, as there."""
    # Two sub-layers per layer add to the stream.
    scale, deep = sizes.dim**-0.5, (2 * sizes.layers) ** -0.5
    model.text.words.weight.normal_(0, 0.02)
    model.text.positions.weight.normal_(0, 0.01)
    for layer in model.text.encoder.layers:
        assert isinstance(layer, PreNormLayer)
        for part in (layer.attention.query, layer.attention.key, layer.attention.value):
            part.weight.normal_(0, scale)
        # What is added to the stream gets smaller with depth, so that its variance does not grow.
        layer.attention.out.weight.normal_(0, scale * deep)
        layer.feedforward.contract.weight.normal_(0, scale * deep)
        layer.feedforward.expand.weight.normal_(0, (2 * sizes.dim) ** -0.5)
    for projection in (model.image_projection, model.text_projection):
        if projection is not None:
            projection.weight.normal_(0, projection.in_features**-0.5)


def clip_b32(**overrides: Any) -> Clip:
    """ViT-B/32: 12 layers, patches of 32 pixels: 151 M parameters."""
    return Clip(**overrides)


def clip_b16(**overrides: Any) -> Clip:
    """ViT-B/16: as B/32 with patches of 16 pixels, four times as many: 150 M parameters."""
    return Clip(**{"patch": 16, **overrides})


def clip_l14(**overrides: Any) -> Clip:
    """ViT-L/14: 24 layers of width 1024, patches of 14 pixels: 428 M parameters."""
    sizes = {"text": BASE, "vision": LARGE, "joint_dim": 768, "patch": 14}
    return Clip(**{**sizes, **overrides})


def clip_l14_336(**overrides: Any) -> Clip:
    """ViT-L/14 for pictures of 336 pixels: 428 M parameters."""
    return clip_l14(**{"image_size": 336, **overrides})


def siglip_b16(**overrides: Any) -> Siglip:
    """SigLIP base, patches of 16 pixels: 203 M parameters."""
    return Siglip(**overrides)


def siglip_so400m(**overrides: Any) -> Siglip:
    """SigLIP so400m for pictures of 384 pixels, 27 layers of width 1152: 878 M parameters."""
    sizes = {"text": SO400M, "vision": SO400M, "image_size": 384, "patch": 14}
    return Siglip(**{**sizes, **overrides})


def siglip2_b16(**overrides: Any) -> Siglip:
    """SigLIP 2 base: SigLIP's towers with the 256,000 tokens of Gemma: 375 M parameters."""
    return Siglip(**{"vocab_size": 256_000, "pad_id": 0, **overrides})


def siglip2_so400m(**overrides: Any) -> Siglip:
    """SigLIP 2 so400m for pictures of 384 pixels: 1.1 billion parameters."""
    return siglip_so400m(**{"vocab_size": 256_000, "pad_id": 0, **overrides})


def clip_tiny(**overrides: Any) -> Clip:
    """2 layers of width 48 per tower, patches of 6 pixels: learns from scratch on a CPU."""
    sizes = {"vocab_size": 1000, "text": TINY, "vision": TINY, "joint_dim": 48}
    return Clip(**{**sizes, "image_size": 24, "patch": 6, "max_positions": 77, **overrides})


def siglip_tiny(**overrides: Any) -> Siglip:
    """2 layers of width 48 per tower, patches of 6 pixels; every text has 32 tokens with its padding."""
    sizes = {"vocab_size": 1000, "text": TINY, "vision": TINY}
    return Siglip(**{**sizes, "image_size": 24, "patch": 6, "max_positions": 32, "pad_id": 0, **overrides})
