"""MemeCLIP: adapters on the vectors of CLIP's towers, and a cosine classifier that starts at prompts.

Shah et al., 2024, https://arxiv.org/abs/2409.14703. Original: SiddhantBikram/MemeCLIP, which cannot start as
published. Differences: both sides are read in the joint space, where the original takes the image with and
the text without its projection (`compat`); the joint vectors have length 1.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn import Towers, mapping, prompt_vectors, require_rates, stack
from diptych.tasks.classify import Classify
from diptych.types import VisionLanguageModel


class Adapter(nn.Module):
    """A bottleneck that only adds: `ReLU(W2 ReLU(W1 x))`, without biases."""

    def __init__(self, dim: int, reduction: int) -> None:
        super().__init__()
        self.down, self.up = (
            nn.Linear(dim, dim // reduction, bias=False),
            nn.Linear(dim // reduction, dim, bias=False),
        )

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return F.relu(self.up(F.relu(self.down(x))))


class AdapterHead(nn.Module):
    """MemeCLIP's layers between the vectors of two towers and the scores.

    Args:
        widths: of the two vectors, which the head takes side by side.
        dim: width of the mapped vectors.
        map_layers: Linears of each map.
        layers: Linears after the product of both sides.
        ratio: share of the adapter in each side.
        reduction: how many times narrower the middle of an adapter is.
        scale: factor of the cosines.
        dropouts: rates after the maps, after the product, and after each layer.
    """

    def __init__(
        self,
        dim_in: int,
        outputs: int,
        *,
        widths: Sequence[int],
        dim: int,
        map_layers: int = 1,
        layers: int = 1,
        ratio: float = 0.2,
        reduction: int = 4,
        scale: int | float = 30,
        dropouts: Sequence[int | float] = (0.1, 0.4, 0.2),
    ) -> None:
        super().__init__()
        require_rates(dropouts)
        if not 0 <= ratio <= 1 or not 1 <= reduction <= dim or layers < 0 or scale <= 0:
            raise ConfigError(
                f"task.ratio is {ratio} (from 0 to 1), task.reduction {reduction} (from 1 to task.dim), "
                f"task.layers {layers} (from 0), task.scale {scale} (above 0)."
            )
        assert sum(widths) == dim_in, "the readout has these widths"
        self.widths, self.ratio, self.scale = tuple(widths), ratio, scale
        self.image_map, self.text_map = (
            mapping(one, dim, layers=map_layers, dropout=dropouts[0]) for one in widths
        )
        self.image_adapter, self.text_adapter = Adapter(dim, reduction), Adapter(dim, reduction)
        self.layers = stack(dim, dim, layers=layers, dropouts=dropouts[1:])
        self.weight = nn.Parameter(torch.empty(outputs, dim))
        # Without prompts; `begin` puts the vectors of prompts here.
        nn.init.xavier_uniform_(self.weight)

    def fused(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "N D"]:
        """Return the product of both sides, each mapped, adapted and of length 1."""
        image, text = x.split(self.widths, dim=-1)
        left = self._mixed(self.image_map(image), self.image_adapter)
        return left * self._mixed(self.text_map(text), self.text_adapter)

    def _mixed(self, vector: Float[Tensor, "N D"], adapter: nn.Module) -> Float[Tensor, "N D"]:
        # Length 1 on both sides, so that the entries of their product sum to a cosine.
        return F.normalize(self.ratio * adapter(vector) + (1 - self.ratio) * vector, dim=-1)

    def forward(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "N C"]:
        vector = F.normalize(self.layers(self.fused(x)), dim=-1)
        # Cosines lie in [-1, 1]; unscaled, a softmax of two could not pass 0.88.
        return self.scale * vector @ F.normalize(self.weight, dim=-1).T


class MemeClip(Classify):
    """Classification by the cosines of adapted vectors with a vector for each class.

    Args:
        dim: width of the mapped vectors; None is the width of the image tower, which prompts need.
        map_layers: as in `AdapterHead`, like the settings up to `dropouts`.
        prompts: prompts of each label, in order: the start of the vector of its class. None starts anywhere.
        tokens: ids of every prompt; a run fills them in with the tokenizer of its processor.
        compat: read the text before its projection, as the original does.

    The other arguments are those of `Classify`.

    Raises:
        ConfigError: the model has no towers, or prompts and `dim` do not fit it.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        labels: Sequence[str],
        pairs: int = 1,
        dim: int | None = None,
        map_layers: int = 1,
        layers: int = 1,
        ratio: float = 0.2,
        reduction: int = 4,
        scale: int | float = 30,
        dropouts: Sequence[int | float] = (0.1, 0.4, 0.2),
        prompts: Mapping[str, Sequence[str]] | None = None,
        tokens: Sequence[Sequence[Sequence[int]]] | None = None,
        compat: bool = False,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        threshold: float = 0.5,
    ) -> None:
        joint = ("image",) if compat else ("image", "text")

        def readout(model: VisionLanguageModel, pairs: int) -> Towers:
            return Towers(model, pairs, joint=joint)

        towers = readout(model, pairs)
        self.prompted = prompts is not None
        own = prototype_dim(model)
        if self.prompted and (not own or dim not in (None, own)):
            raise ConfigError(
                f"task.dim is {dim} for prompts and {type(model).__name__}; expected a model with a text "
                f"tower, and the width of its image tower (={own}), or task.prompts=null."
            )

        def head(width: int, outputs: int) -> AdapterHead:
            return AdapterHead(
                width,
                outputs,
                widths=towers.widths,
                dim=dim or own or towers.widths[0],
                map_layers=map_layers,
                layers=layers,
                ratio=ratio,
                reduction=reduction,
                scale=scale,
                dropouts=dropouts,
            )

        super().__init__(
            model,
            labels=labels,
            pairs=pairs,
            readout=readout,
            head=head,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            threshold=threshold,
        )
        self.tokens = tokens

    @torch.no_grad()
    def begin(self, model: VisionLanguageModel) -> None:
        """Start the vector of each class at its prompts.

        Raises:
            ConfigError: the prompts have not been tokenized.
        """
        if not self.prompted:
            return
        assert isinstance(self.head, AdapterHead)
        vectors = prompt_vectors(model, self.tokens, device=self.head.weight.device)
        self.head.weight.copy_(prototypes(vectors, getattr(model, "image_projection", None)))


def prototypes(vectors: Float[Tensor, "C J"], projection: nn.Linear | None) -> Float[Tensor, "C D"]:
    """Take vectors of the joint space back to the width of the image tower; they get length 1."""
    # By the transpose and not by the inverse of the projection, as in the original.
    return F.normalize(vectors if projection is None else vectors @ projection.weight, dim=-1)


def prototype_dim(model: VisionLanguageModel) -> int:
    """Width of the vectors of prompts; 0 for models without a text tower."""
    if not hasattr(model, "encode_text"):
        return 0
    return int(getattr(model, "tower_dims", (0, 0))[0])
