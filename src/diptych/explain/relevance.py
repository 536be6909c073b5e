"""Generic attention relevance: how far each place flowed into a decision, through all layers of attention.

Chefer, Gur and Wolf, 2021, https://arxiv.org/abs/2103.15679.
Original: hila-chefer/Transformer-MM-Explainability.
It cannot tell support from opposition: all numbers are at least 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn import AttentionPlaces, Side, attention_places, capture_attention
from diptych.types import Encoding, Inputs, VisionLanguageModel

POOLED = frozenset({"pooled"})
Maps = Mapping[str, Float[Tensor, "B _ _"]]
Flows = dict[tuple[Side, Side], Float[Tensor, "B _ _"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """Relevance of every place of a batch, of those that the model adds itself, too; 0 at padding.

    Args:
        cross: how far each region flowed into each token.
    """

    text: Float[Tensor, "B T"]
    regions: Float[Tensor, "B R"]
    cross: Float[Tensor, "B T R"]


def relevance(
    model: nn.Module, inputs: Inputs, explained: Callable[[Encoding], Float[Tensor, " B"]]
) -> Relevance:
    """Follow attention, weighted by its gradient, from the inputs to the explained logit of every row.

    Args:
        explained: from the encoding, whose pooled vector alone is computed, to one logit per row.

    Raises:
        ConfigError: the model has no attention.
    """
    with torch.enable_grad(), capture_attention(model) as maps:
        logits = explained(cast(VisionLanguageModel, model)(inputs, reads=POOLED))
        if not maps:
            raise ConfigError(
                f"{type(model).__name__} has no attention layers, so attention has no relevance."
            )
        # Rows of a batch do not meet, so the sum has the gradients of every row by itself.
        gradients = torch.autograd.grad(logits.sum(), [*maps.values()], allow_unused=True)
    plan = attention_places(model)
    if unplaced := [name for name in maps if not plan.describes(name)]:
        raise ConfigError(
            f"the map {unplaced[0]} of {type(model).__name__} is over neither text nor regions, so relevance "
            "cannot follow it; use another method."
        )
    real = real_places(inputs, plan)
    weighted: dict[str, Tensor] = {}
    for (name, map_), gradient in zip(maps.items(), gradients, strict=True):
        # "Rule 5": the product is cut before the mean over heads. A map that nothing reads moves nothing.
        share = torch.zeros_like(map_) if gradient is None else (map_ * gradient).clamp(min=0)
        weighted[name] = _between_real(share.detach().mean(1), real, plan.sides_of(name))
    return _read(_flows(weighted, real, plan), inputs, real, plan)


def real_places(inputs: Inputs, plan: AttentionPlaces) -> dict[Side, Bool[Tensor, "B _"]]:
    """Return which places of each side are not padding; a row without regions is padded to one region."""
    nothing = torch.zeros(len(inputs), 0, dtype=torch.bool)
    text = nothing if inputs.text is None else inputs.text.mask
    regions = nothing if inputs.regions is None else inputs.regions.spread(inputs.regions.mask)
    # What the model adds is real; in which place does not matter for a mask that begins with a real token.
    text = F.pad(text, (len(plan.after_first), 0), value=True)
    regions = F.pad(regions, (len(plan.before_regions), 0), value=True)
    regions = F.pad(regions, (0, len(plan.after_regions)), value=True)
    return {"text": text, "regions": regions, "both": torch.cat([text.to(regions.device), regions], 1)}


def raw_attention(maps: Maps, inputs: Inputs, plan: AttentionPlaces) -> Relevance:
    """Return what the place read looks at in the last layers; it shows where the model looked, not why.

    Args:
        maps: means over heads, by name.
    """
    real = real_places(inputs, plan)
    last: Flows = {}
    for name, map_ in maps.items():
        sides = plan.sides_of(name)
        last[sides] = _between_real(map_, real, sides)
    return _read(last, inputs, real, plan)


def rollout(maps: Maps, inputs: Inputs, plan: AttentionPlaces) -> Relevance:
    """Return the product of all layers' maps, each with the identity added for the residual connection.

    Abnar and Zuidema, 2020, https://arxiv.org/abs/2005.00928. Rows are normalized in models of two streams
    only, as in the original. It does not depend on what is explained.
    """
    real = real_places(inputs, plan)
    sides_used = {plan.sides_of(name)[0] for name in maps}
    two = "both" not in sides_used
    flows: Flows = {(side, side): _identity(real[side]) for side in sides_used}
    before, cross = flows.get(("text", "text")), None
    for name, map_ in maps.items():
        sides = plan.sides_of(name)
        clean = _between_real(map_, real, sides)
        if sides[0] != sides[1]:
            cross = clean if sides == ("text", "regions") else cross
            continue
        layer = clean + _identity(real[sides[0]])
        if two:
            layer = layer / layer.sum(-1, keepdim=True)
        if sides[0] == "text":
            before = flows[sides]
        flows[sides] = layer @ flows[sides]
    if cross is not None and before is not None:
        # The last self attention of the text comes after the last look at the picture.
        flows["text", "regions"] = before.transpose(1, 2) @ cross @ flows["regions", "regions"]
    return _read(flows, inputs, real, plan)


def _between_real(
    map_: Float[Tensor, "B Q K"], real: Mapping[Side, Bool[Tensor, "B _"]], sides: tuple[Side, Side]
) -> Float[Tensor, "B Q K"]:
    # Queries, too: the transpose in rule 10 mixes all rows of a map into the one that is read.
    return map_ * real[sides[0]][:, :, None] * real[sides[1]][:, None, :]


def _identity(mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S S"]:
    return torch.eye(mask.shape[1], device=mask.device).expand(len(mask), -1, -1)


def _flows(weighted: Maps, real: Mapping[Side, Bool[Tensor, "B _"]], plan: AttentionPlaces) -> Flows:
    """Apply the rules of the paper to the maps in their order of computation."""
    sides = {side for name in weighted for side in plan.sides_of(name)}
    flows: Flows = {
        (one, other): _identity(real[one])
        if one == other
        else torch.zeros(len(real[one]), real[one].shape[1], real[other].shape[1], device=real[one].device)
        for one in sides
        for other in sides
    }
    meetings: list[Flows] = []
    done = dict.fromkeys(sides, 0)
    for name, map_ in weighted.items():
        one, other = plan.sides_of(name)
        if one == other:  # rules 6 and 7: all that flowed into this side so far
            for end in sides:
                flows[one, end] = flows[one, end] + map_ @ flows[one, end]
            continue
        # Both directions of a meeting read the flows before it, although one is computed first.
        if done[one] == len(meetings):
            meetings.append(dict(flows))
        old = meetings[done[one]]
        done[one] += 1
        mixed = _normalized(old[one, one]).transpose(1, 2) @ map_ @ _normalized(old[other, other])
        flows[one, other] = flows[one, other] + mixed  # rule 10
        flows[one, one] = flows[one, one] + map_ @ old[other, one]  # rule 11
    return flows


def _normalized(flow: Float[Tensor, "B S S"]) -> Float[Tensor, "B S S"]:
    """Scale what flowed into each place, without itself, to the sum 1; leave zeros where nothing did."""
    itself = torch.eye(flow.shape[1], device=flow.device)
    others = flow - itself
    total = others.sum(-1, keepdim=True)
    # The original divides 0 by 0 here, so it cannot read padded rows.
    return torch.where(total > 0, others / total.where(total > 0, 1), 0) + itself


def _read(
    flows: Flows,
    inputs: Inputs,
    real: Mapping[Side, Bool[Tensor, "B _"]],
    plan: AttentionPlaces,
) -> Relevance:
    """Take the rows of the places that the model pools; what such a place has of itself says nothing."""
    length, rows = real["text"].shape[1], torch.arange(len(inputs), device=real["text"].device)
    joint = ("both", "both") in flows
    words = flows["both", "both"] if joint else flows["text", "text"]
    width = real["regions"].shape[1]
    into = flows["both", "both"][:, :, length:] if joint else flows.get(("text", "regions"))
    if into is None:  # the model reads no regions
        into = words.new_zeros(len(words), length, width)
    at = torch.zeros_like(rows)
    if plan.pooled == "before_end":
        at = (real["text"].sum(1) - 2).clamp(min=0)
    text = words[rows, at, :length].clone()
    regions = into[rows, at].clone()
    text[rows, at] = 0
    if plan.pooled == "first_of_both":
        text = text + flows["regions", "text"][:, 0]
        whole = flows["regions", "regions"][:, 0].clone()
        whole[:, 0] = 0
        regions = regions + whole
    return Relevance(text=text, regions=regions, cross=into[:, :length])
