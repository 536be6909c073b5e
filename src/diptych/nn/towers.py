"""The towers of dual encoders such as CLIP and SigLIP: one for pictures, one for texts."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.coattention import Sizes
from diptych.nn.prenorm import AttentionPool, PreNormEncoder, pick
from diptych.nn.sizes import require_sizes
from diptych.types import PaddedText


class ImageTower(nn.Module):
    """A vision transformer over square patches, row by row.

    Args:
        image_size: side of the pictures of training in pixels, or (height, width). Pictures of another size
            get interpolated positions.
        patch: side of a patch in pixels. What remains on the right and below is cut off.
        pool: `class` puts a learned vector before the patches and returns its state (CLIP). `attention` has
            no such vector and lets a learned probe attend to all patches (SigLIP).
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        image_size: int | Sequence[int],
        patch: int,
        pool: str,
        activation: str,
        eps: float,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        require_sizes(height=height, width=width, patch=patch)
        if min(height, width) < patch:
            raise ConfigError(f"model.image_size is {image_size}; expected at least the patch of {patch}.")
        self.grid, self.patch = (height // patch, width // patch), patch
        scale = sizes.dim**-0.5
        first = pool == "class"
        # One step per patch: a convolution whose stride is its size. CLIP's has no bias, SigLIP's has one.
        self.patches = nn.Conv2d(3, sizes.dim, patch, patch, bias=not first)
        self.first = nn.Parameter(torch.randn(sizes.dim) * scale) if first else None
        # One table, of which row 0 belongs to the class vector if there is one.
        self.positions = nn.Parameter(torch.randn(math.prod(self.grid) + first, sizes.dim) * scale)
        self.before = nn.LayerNorm(sizes.dim, eps=eps) if first else None
        self.encoder = PreNormEncoder(sizes, activation=activation, eps=eps)
        self.norm = nn.LayerNorm(sizes.dim, eps=eps)
        self.pool = None if first else AttentionPool(sizes, activation=activation, eps=eps)

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Return one vector per picture, without CLIP's projection to the joint space."""
        x = self.embed(pixels)
        if self.pool is not None:
            pooled: Tensor = self.pool(self.norm(self.encoder(x)))
            return pooled
        # The class vector alone is read, so the last layer computes no other position.
        first = torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)
        vector: Tensor = self.norm(self.encoder(x, first)[:, 0])
        return vector

    def embed(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B S D"]:
        """Return the states before the first layer.

        Raises:
            ConfigError: the pictures are smaller than a patch.
        """
        if min(pixels.shape[2:]) < self.patch:
            raise ConfigError(
                f"pictures of {pixels.shape[3]} x {pixels.shape[2]} pixels have no patch of {self.patch} x "
                f"{self.patch}; set processor.square.size to the size that the model was trained with."
            )
        patches = self.patches(pixels)
        positions = resize_positions(self.positions, self.grid, patches.shape[2:])
        # [B, D, h, w] to [B, h w, D], row by row.
        x = patches.flatten(2).transpose(1, 2)
        if self.first is not None:
            x = torch.cat([self.first.expand(len(x), 1, -1), x], 1)
        x = x + positions
        states: Tensor = x if self.before is None else self.before(x)
        return states


def resize_positions(
    table: Float[Tensor, "S D"], old: Sequence[int], new: Sequence[int], *, antialias: bool = False
) -> Float[Tensor, "Z D"]:
    """Interpolate a table of positions to a grid of another size; the row of a class vector is kept.

    Args:
        old: rows and columns of the table.
        new: rows and columns that are wanted.
        antialias: as open_clip does when it loads weights; Hugging Face does not.
    """
    if tuple(old) == tuple(new):
        return table
    # The row of a class vector, which has no place in the picture.
    extra = len(table) - math.prod(old)
    grid = table[extra:].T.unflatten(1, tuple(old))[None]
    grid = F.interpolate(grid, size=tuple(new), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([table[:extra], grid[0].flatten(1).T])


class TextTower(nn.Module):
    """A transformer over tokens, which returns the state of the last one.

    Args:
        pad_id: None for CLIP: positions see only earlier ones, and the last real token is read. A number for
            SigLIP: every text is filled with this token to `max_positions`, all positions see each other and
            the padding, and the last position is read whatever it holds.
    """

    def __init__(
        self,
        vocab_size: int,
        sizes: Sizes,
        *,
        max_positions: int,
        pad_id: int | None,
        activation: str,
        eps: float,
    ) -> None:
        super().__init__()
        require_sizes(vocab_size=vocab_size, max_positions=max_positions)
        self.pad_id = pad_id
        self.words = nn.Embedding(vocab_size, sizes.dim)
        self.positions = nn.Embedding(max_positions, sizes.dim)
        causal = pad_id is None
        self.encoder = PreNormEncoder(sizes, activation=activation, eps=eps, causal=causal)
        self.norm = nn.LayerNorm(sizes.dim, eps=eps)

    def forward(self, text: PaddedText) -> Float[Tensor, "B D"]:
        """Return one vector per text, without the projection to the joint space."""
        vector: Tensor = self.norm(self.encoder(self.embed(text), self.last(text))[:, 0])
        return vector

    def states(self, text: PaddedText) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
        """Return the states of all tokens, and the vector of each text."""
        states = self.norm(self.encoder(self.embed(text)))
        vectors = pick(states, self.last(text))[:, 0]
        # Positions that only fill a text are nobody's tokens.
        return states[:, : text.ids.shape[1]], vectors

    def embed(self, text: PaddedText) -> Float[Tensor, "B Z D"]:
        """Return the states before the first layer.

        Raises:
            ConfigError: the texts have more tokens than the model has positions.
        """
        ids, room = text.ids, self.positions.num_embeddings
        # Before the look-up, which on a GPU would end in an assertion without a name.
        if ids.shape[1] > room:
            raise ConfigError(
                f"a text of {ids.shape[1]} tokens exceeds the {room} positions of the model; lower "
                "processor.max_tokens."
            )
        if self.pad_id is not None:
            ids = F.pad(ids.masked_fill(~text.mask, self.pad_id), (0, room - ids.shape[1]), value=self.pad_id)
        states: Tensor = self.words(ids) + self.positions.weight[: ids.shape[1]]
        return states

    def last(self, text: PaddedText) -> Int[Tensor, "B 1"]:
        """Return the position that is read."""
        if self.pad_id is not None:
            return torch.full_like(text.ids[:, :1], self.positions.num_embeddings - 1)
        # From the mask and not from the ids: a user can write the end token into a text.
        return (text.mask.sum(1, keepdim=True) - 1).clamp(min=0)
