"""Two vectors, of a picture and of its text, to one: the fusions of Hate-CLIPper and those built on it.

Kumar and Nandakumar, 2022, https://arxiv.org/abs/2210.05916. Original: gokulkarthik/hateclipper.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, nearest
from diptych.nn.readout import Readout
from diptych.nn.sizes import require_sizes
from diptych.types import Batch, Encoding, VisionLanguageModel

FUSIONS = ("align", "concat", "cross", "align_concat")


def fused_dim(dim: int, fusion: str) -> int:
    """Width of the fusion of two vectors of width `dim`.

    Raises:
        ConfigError: there is no such fusion.
    """
    widths = {"align": dim, "concat": 2 * dim, "cross": dim * dim, "align_concat": 3 * dim}
    if fusion not in widths:
        raise ConfigError(
            f"the fusion is {fusion!r}; expected one of {', '.join(widths)}.{nearest(fusion, widths)}"
        )
    return widths[fusion]


def fuse(image: Float[Tensor, "B n"], text: Float[Tensor, "B n"], fusion: str) -> Float[Tensor, "B D"]:
    """Combine vectors of pictures and texts.

    `align` is their product, `concat` [image ; text], `align_concat` [product ; image ; text], and `cross`
    all products of an entry of the image with one of the text, row by row of the image.
    """
    if fusion == "cross":
        # Of [a b] and [c d]: ac ad bc bd. The width is squared: 1024 becomes a million inputs of the next
        # layer.
        return (image[:, :, None] * text[:, None, :]).flatten(1)
    # Of vectors of length 1, the entries of the product sum to their cosine.
    parts = {"align": (image * text,), "concat": (image, text)}
    return torch.cat(parts.get(fusion, (image * text, image, text)), -1)


class Towers(Readout):
    """Read the vectors of both towers of a dual encoder, side by side, of one pair per example.

    Args:
        joint: sides to read in the joint space, with length 1; the others are read before the projection.

    Attributes:
        widths: of the image's and of the text's vector.
    """

    def __init__(self, model: VisionLanguageModel, pairs: int = 1, *, joint: Sequence[str] = ()) -> None:
        super().__init__()
        towers, width = getattr(model, "tower_dims", (0, 0)), getattr(model, "joint_dim", 0)
        self.names = [f"{'joint' if side in joint else 'tower'}_{side}" for side in ("image", "text")]
        own = {"tower_image": towers[0], "tower_text": towers[1], "joint_image": width, "joint_text": width}
        first, second = (int(own[name]) for name in self.names)
        if pairs != 1 or not (first and second):
            raise ConfigError(
                f"the task takes one pair and a model with {' and '.join(self.names)}; got "
                f"{pairs} pair(s) and {type(model).__name__}. Use a model such as clip_b32, or a store "
                "of its embeddings."
            )
        self.widths, self.dim, self.reads = (first, second), first + second, frozenset(self.names)

    def sides(self, encoding: Encoding) -> tuple[Float[Tensor, "N Vi"], Float[Tensor, "N Vt"]]:
        """Return the vectors of the picture and of the text of every example."""
        image, text = (getattr(encoding, name) for name in self.names)
        return image, text

    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        return torch.cat(self.sides(encoding), -1)


def mapping(width: int, dim: int, *, layers: int = 1, dropout: int | float = 0.0) -> nn.Sequential:
    """`Linear, dropout`, then `ReLU, Linear, dropout` for each further layer: it ends without activation."""
    require_sizes(width=width, dim=dim, layers=layers)
    parts: list[nn.Module] = [nn.Linear(width, dim), nn.Dropout(dropout)]
    for _ in range(layers - 1):
        parts += [nn.ReLU(), nn.Linear(dim, dim), nn.Dropout(dropout)]
    return nn.Sequential(*parts)


def stack(
    width: int, dim: int, *, layers: int, dropouts: Sequence[int | float], batch_norm: bool = False
) -> nn.Sequential:
    """A dropout, then `Linear, ReLU, dropout` for each layer; `dropouts` are its two rates."""
    require_sizes(width=width, dim=dim)
    parts: list[nn.Module] = [nn.Dropout(dropouts[0])]
    for number in range(layers):
        parts.append(nn.Linear(dim if number else width, dim))
        # Before the activation, as in RGCL.
        parts += [nn.BatchNorm1d(dim)] if batch_norm else []
        parts += [nn.ReLU(), nn.Dropout(dropouts[1])]
    return nn.Sequential(*parts)


class VectorHead(nn.Module):
    """Scores from a vector: a dropout, `Linear, ReLU, dropout` for each layer, and a last Linear.

    Args:
        width: of the layers.
        layers: Linears before the last one.
        dropouts: rates before the layers, and after each.
        batch_norm: whether a BatchNorm follows each Linear but the last (RGCL's option).
    """

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        width: int = 1024,
        layers: int = 1,
        dropouts: Sequence[int | float] = (0.4, 0.1),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if layers < 0:
            raise ConfigError(f"task.layers is {layers}; expected 0 or more.")
        require_rates(dropouts, 2)
        self.layers = stack(dim, width, layers=layers, dropouts=dropouts, batch_norm=batch_norm)
        # Without layers, the vector is the fusion itself.
        self.embed_dim = width if layers else dim
        self.output = nn.Linear(self.embed_dim, outputs)

    def embed(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "N D"]:
        """Return the last layer before its activation: the vector of an example that RGCL compares."""
        # The last two modules are ReLU and dropout: the vector keeps its signs.
        vector: Tensor = self.layers[: self._last](x)
        return vector

    def decide(self, vector: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Return the scores of vectors that `embed` made."""
        scores: Tensor = self.output(self.layers[self._last :](vector))
        return scores

    def forward(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "N C"]:
        return self.decide(self.embed(x))

    @property
    def _last(self) -> int:
        # Without layers there is only the dropout, and no activation to leave out.
        return max(1, len(self.layers) - 2)


class FusionHead(nn.Module):
    """Scores from a picture's and a text's vector: map both to one width, fuse, and decide.

    Args:
        widths: of the two vectors, which the head takes side by side.
        dim: width of the mapped vectors.
        fusion: one of `FUSIONS`.
        map_layers: Linears of each map.
        width: of the layers after the fusion; None is `dim`.
        layers: Linears between the fusion and the last one.
        dropouts: rates after the maps, after the fusion, and after each layer.
        batch_norm: see `VectorHead`.
    """

    def __init__(
        self,
        dim_in: int,
        outputs: int,
        *,
        widths: Sequence[int],
        dim: int = 1024,
        fusion: str = "align",
        map_layers: int = 1,
        width: int | None = None,
        layers: int = 1,
        dropouts: Sequence[int | float] = (0.2, 0.4, 0.1),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        require_rates(dropouts)
        if sum(widths) != dim_in:
            raise ConfigError(f"the head takes {dim_in} numbers; expected two vectors of {list(widths)}.")
        self.widths, self.fusion = tuple(widths), fusion
        self.image_map, self.text_map = (
            mapping(one, dim, layers=map_layers, dropout=dropouts[0]) for one in widths
        )
        self.deep = VectorHead(
            fused_dim(dim, fusion),
            outputs,
            width=width or dim,
            layers=layers,
            dropouts=dropouts[1:],
            batch_norm=batch_norm,
        )
        self.embed_dim = self.deep.embed_dim

    def mapped(self, x: Float[Tensor, "N V"]) -> tuple[Float[Tensor, "N n"], Float[Tensor, "N n"]]:
        """Return the mapped vectors of the pictures and of the texts, with length 1."""
        # The two vectors of `Towers`, side by side.
        image, text = x.split(self.widths, dim=-1)
        return F.normalize(self.image_map(image), dim=-1), F.normalize(self.text_map(text), dim=-1)

    def fused(self, image: Float[Tensor, "N n"], text: Float[Tensor, "N n"]) -> Float[Tensor, "N D"]:
        """Return the vector of each example from its mapped sides; see `VectorHead.embed`."""
        vector: Tensor = self.deep.embed(fuse(image, text, self.fusion))
        return vector

    def embed(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "N D"]:
        """Return the vector of each example; see `VectorHead.embed`."""
        return self.fused(*self.mapped(x))

    def decide(self, vector: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Return the scores of vectors that `embed` made."""
        scores: Tensor = self.deep.decide(vector)
        return scores

    def forward(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "N C"]:
        return self.decide(self.embed(x))


def require_rates(dropouts: Sequence[int | float], count: int = 3) -> None:
    """Check the dropout rates of a head.

    Raises:
        ConfigError: there are not `count`, or one is not in [0, 1).
    """
    if len(dropouts) != count or not all(0 <= rate < 1 for rate in dropouts):
        raise ConfigError(
            f"the dropouts are {list(dropouts)}; expected {count} rates from 0 and below 1"
            f"{': after the maps, after the fusion, and after each layer' if count == 3 else ''}."
        )
