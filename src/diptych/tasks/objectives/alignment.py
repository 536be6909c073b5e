"""Word-region alignment by optimal transport (UNITER)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.tasks.objectives.base import Objective, Sample
from diptych.types import Encoding, VisionLanguageModel


class Alignment(Objective):
    """Optimal-transport distance between words and regions: small for matching pairs, large for mismatched.

    The loss is `(sum of distances of matching rows - sum of distances of mismatched rows) / rows`. UNITER
    adds it to the matching loss with a weight of 0.1. Special tokens take part, padding does not. Xie et al.,
    2018, https://arxiv.org/abs/1802.04307 (IPOT).

    Args:
        beta: step size of the proximal point method.
        iterations: number of its iterations, each with one update of both scaling vectors.
    """

    reads = frozenset({"text", "regions"})
    parts = ("alignment",)

    def __init__(self, model: VisionLanguageModel, *, beta: int | float = 0.5, iterations: int = 50) -> None:
        super().__init__()
        if not model.text_dim == model.region_dim > 0:
            raise ConfigError(
                f"{type(model).__name__} has text states of width {model.text_dim} and region states of "
                f"width {model.region_dim}; alignment needs equal widths, so remove it for this model."
            )
        self.beta, self.iterations = beta, iterations

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        text, regions = sample.inputs.text, sample.inputs.regions
        assert text is not None and regions is not None
        assert encoding.text is not None and encoding.regions is not None
        distance = self.distance(encoding.text, text.mask, encoding.regions, regions.mask)
        # +1 for matching rows, -1 for mismatched ones.
        # `clamp`: a replaced first text has the label 2 and is a mismatch like any other.
        sign = 1.0 if sample.mismatch is None else 1 - 2 * sample.mismatch.clamp(max=1)
        return {"alignment": (distance * sign).mean()}

    def distance(
        self,
        text: Float[Tensor, "B T D"],
        text_mask: Bool[Tensor, "B T"],
        regions: Float[Tensor, "B R D"],
        region_mask: Bool[Tensor, "B R"],
    ) -> Float[Tensor, " B"]:
        """Return the transport cost of each row; 0 for a row without words or regions."""
        # In single precision, as in UNITER, because the iterations of `transport` accumulate rounding errors.
        with torch.autocast(text.device.type, enabled=False):
            words, seen = (functional.normalize(x.float(), dim=-1, eps=1e-5) for x in (text, regions))
            pairs = text_mask[:, :, None] & region_mask[:, None]
            cost = (1 - words @ seen.mT).masked_fill(~pairs, 0.0)
            # As in UNITER, the plan is a constant: gradients flow through the cost only.
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
    """Compute IPOT's transport plan: how much of each word goes to each region; 0 at padding."""
    pairs = text_mask[:, :, None] & region_mask[:, None]
    words, seen = (mask.sum(1, keepdim=True).clamp(min=1).float() for mask in (text_mask, region_mask))
    # All words of a row have equal weights, and all regions; `scale` and `share` are the two scaling vectors.
    # The proximal step: IPOT multiplies the plan by this kernel again and again, and so needs no small beta,
    # at which Sinkhorn's iterations would underflow.
    kernel = (-cost / beta).exp() * pairs
    # The original starts from ones and uniform weights.
    plan = pairs.float()
    scale = text_mask / words
    # Added to the divisors of padded words and regions, which would be 0; their numerators are 0 or unused.
    off_words, off_regions = (~pairs.any(2)).float(), (~pairs.any(1)).float()
    for _ in range(iterations):
        flow = kernel * plan
        share = region_mask / (seen * (scale[:, :, None] * flow).sum(1) + off_regions)
        scale = text_mask / (words * (flow * share[:, None]).sum(2) + off_words)
        plan = scale[:, :, None] * flow * share[:, None]
    return plan
