"""DeVLBERT's interventions: predictions from an attention over dictionaries of confounders.

Zhang et al., 2020, https://arxiv.org/abs/2008.06884, "design D" of shengyuzhang/DeVLBert.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn import init_bert, initial_std
from diptych.tasks.objectives.base import Objective, Sample, average, first_layers
from diptych.tasks.objectives.masked_regions import divergence, require_field
from diptych.tasks.objectives.masked_text import TiedWords, is_in, word_loss
from diptych.types import Encoding, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Confounders:
    """A dictionary of confounders.

    Args:
        vectors: one vector per entry.
        prior: frequency of each entry.
    """

    vectors: Float[Tensor, "K E"]
    prior: Float[Tensor, " K"]


class Intervention(nn.Module):
    """`sum over k of softmax(query(state) . key(z_k) / sqrt(width)) prior_k value(z_k)`.

    Args:
        value_dim: width of a learned projection of the entries; None uses the entries without projection.
    """

    def __init__(
        self, dim: int, confounders: Confounders, *, value_dim: int | None = None, std: float = 0.02
    ) -> None:
        super().__init__()
        width = confounders.vectors.shape[1]
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(width, dim)
        self.value = nn.Linear(width, value_dim) if value_dim else nn.Identity()
        self.dim = value_dim or width
        # Buffers, so that they move to the device; not persistent, because no file of the original has them.
        self.register_buffer("vectors", confounders.vectors, persistent=False)
        self.register_buffer("prior", confounders.prior, persistent=False)
        init_bert(self, std=std)

    def forward(self, states: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:
        vectors, prior = self.get_buffer("vectors"), self.get_buffer("prior")
        query, key = self.query(states), self.key(vectors)
        # As in the original, the weights are not normalized again after the prior.
        weights = (query @ key.T / query.shape[-1] ** 0.5).softmax(-1) * prior
        mixed: Tensor = weights @ self.value(vectors)
        return mixed


class Interventions(Objective):
    """Predicts words and regions from both dictionaries: within each stream, and across streams.

    Predicted are the nouns of the dictionary that were not masked, with ViLBERT's cross entropy of words, and
    the regions that were not hidden, with ViLBERT's divergence from the detector's probabilities. The
    dictionaries are constants and are not saved, as in the original.

    Args:
        seen: dictionary with one entry per detector class, as wide as region features.
        known: dictionary with one entry per noun, as wide as text states.
        nouns: token ids of those nouns.
    """

    reads = frozenset({"text", "regions"})
    parts = ("words", "words_by_regions", "regions", "regions_by_words")

    def __init__(
        self, model: VisionLanguageModel, *, seen: Confounders, known: Confounders, nouns: Collection[int]
    ) -> None:
        super().__init__()
        text, regions, classes = model.text_dim, model.region_dim, len(seen.prior)
        if not text or not regions:
            raise ConfigError(
                f"{type(model).__name__} lacks text or region states; remove interventions for this model."
            )
        self.nouns = tuple(nouns)
        std = initial_std(model)
        self.words = nn.ModuleList(
            [Intervention(text, known, std=std), Intervention(text, seen, value_dim=text, std=std)]
        )
        self.regions = nn.ModuleList(
            [Intervention(regions, seen, std=std), Intervention(regions, known, value_dim=regions, std=std)]
        )
        self.word_heads = nn.ModuleList(TiedWords(model) for _ in self.words)
        dims = [seen.vectors.shape[1], regions]
        self.region_heads = nn.ModuleList(
            nn.Sequential(*first_layers(dim), nn.Linear(dim, classes)) for dim in dims
        )
        # Once more, for the last Linear of each head, which `first_layers` does not contain.
        init_bert(self.region_heads, std=std)

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        text, regions = sample.inputs.text, sample.inputs.regions
        assert text is not None and regions is not None and encoding.text is not None
        named = text.mask & is_in(text.ids, self.nouns)
        # Masked nouns belong to the objective that masked them.
        if sample.words is not None:
            named &= sample.words < 0
        # Hidden regions belong to the objective that hid them, too.
        shown = regions.mask if regions.hidden is None else regions.mask & ~regions.hidden
        # The nouns stay visible: predicted is what confounders tell about them.
        words = text.ids.masked_fill(~named, -1)
        return self.losses(model, encoding, words, require_field(regions, "probabilities"), shown)

    def losses(
        self,
        model: VisionLanguageModel,
        encoding: Encoding,
        words: Int[Tensor, "B T"],
        probabilities: Float[Tensor, "B R C"],
        shown: Bool[Tensor, "B R"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the four losses for given labels: words other than -1, and the regions in `shown`."""
        assert encoding.text is not None and encoding.regions is not None
        losses = {}
        for name, mix, head in zip(("words", "words_by_regions"), self.words, self.word_heads, strict=True):
            losses[name] = word_loss(partial(_mixed, mix, head), model, encoding.text, words)
        for name, mix, head in zip(
            ("regions", "regions_by_words"), self.regions, self.region_heads, strict=True
        ):
            # The region of the whole image is not among these states; the original leaves it out, too.
            scores = head(mix(encoding.regions[shown])).float()
            losses[name] = average(divergence(scores, probabilities[shown], "kl"), shown)
        return losses


def _mixed(mix: nn.Module, head: nn.Module, states: Tensor, table: Tensor) -> Tensor:
    scores: Tensor = head(mix(states), table)
    return scores
