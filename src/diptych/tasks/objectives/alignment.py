"""Word-region alignment by optimal transport (UNITER)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.tasks.objectives.base import Objective, Sample
from diptych.types import Encoding, VisionLanguageModel


class Alignment(Objective):
    """Transport between words and regions is to be cheap in intact pairs and dear in torn ones.

    The loss is `(sum of distances of intact rows - sum of those of torn rows) / rows`, which UNITER adds to
    that of matching with a weight of 0.1. Special tokens take part, padding does not. Xie et al., 2018,
    https://arxiv.org/abs/1802.04307 (IPOT).

    Args:
        beta: of the proximal step.
        iterations: of the proximal point method, each with one update of both scalings.
    """

    reads = frozenset({"text", "regions"})
    parts = ("alignment",)

    def __init__(self, model: VisionLanguageModel, *, beta: int | float = 0.5, iterations: int = 50) -> None:
        super().__init__()
        if not model.text_dim == model.region_dim > 0:
            raise ConfigError(
                f"{type(model).__name__} gives text states of width {model.text_dim} and region states of "
                f"width {model.region_dim}; alignment compares them, so leave it out for this model."
            )
        self.beta, self.iterations = beta, iterations

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        text, regions = sample.inputs.text, sample.inputs.regions
        assert text is not None and regions is not None
        assert encoding.text is not None and encoding.regions is not None
        distance = self.distance(encoding.text, text.mask, encoding.regions, regions.mask)
        sign = 1.0 if sample.broken is None else 1 - 2 * sample.broken.clamp(max=1)
        return {"alignment": (distance * sign).mean()}

    def distance(
        self,
        text: Float[Tensor, "B T D"],
        text_mask: Bool[Tensor, "B T"],
        regions: Float[Tensor, "B R D"],
        region_mask: Bool[Tensor, "B R"],
    ) -> Float[Tensor, " B"]:
        """Cost of the transport of each row; 0 for a row without any word or region."""
        with torch.autocast(text.device.type, enabled=False):
            words, seen = (functional.normalize(x.float(), dim=-1, eps=1e-5) for x in (text, regions))
            pairs = text_mask[:, :, None] & region_mask[:, None]
            cost = (1 - words @ seen.mT).masked_fill(~pairs, 0.0)
            with torch.no_grad():
                plan = transport(cost, text_mask, region_mask, beta=self.beta, iterations=self.iterations)
            return (cost * plan).sum((1, 2))


def transport(
    cost: Float[Tensor, "B T R"],
    text_mask: Bool[Tensor, "B T"],
    region_mask: Bool[Tensor, "B R"],
    *,
    beta: int | float,
    iterations: int,
) -> Float[Tensor, "B T R"]:
    """The plan that IPOT finds: how much of each word goes to each region; 0 at padding."""
    pairs = text_mask[:, :, None] & region_mask[:, None]
    words, seen = (mask.sum(1, keepdim=True).clamp(min=1).float() for mask in (text_mask, region_mask))
    kernel = (-cost / beta).exp() * pairs
    plan = pairs.float()
    scale = text_mask / words
    # divisors where nothing can flow, whose numerators are 0 or never used
    off_words, off_regions = (~pairs.any(2)).float(), (~pairs.any(1)).float()
    for _ in range(iterations):
        flow = kernel * plan
        share = region_mask / (seen * (scale[:, :, None] * flow).sum(1) + off_regions)
        scale = text_mask / (words * (flow * share[:, None]).sum(2) + off_words)
        plan = scale[:, :, None] * flow * share[:, None]
    return plan
