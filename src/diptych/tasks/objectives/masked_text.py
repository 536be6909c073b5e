"""Masked language modeling: some tokens are masked, exchanged or kept, and the model predicts them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import initial_std
from diptych.tasks.objectives.base import (
    Grades,
    Objective,
    Sample,
    average,
    first_layers,
    grades,
    seeing_rows,
    zero_loss,
)
from diptych.types import Encoding, Inputs, PaddedText, VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class WordMasking:
    """Chooses the tokens to predict, and masks or exchanges them. All originals have the default shares.

    Args:
        mask_id: id of `[MASK]`; 103 in BERT's uncased vocabulary.
        special: ids that are never chosen: `[PAD]`, `[CLS]`, `[SEP]`, `[MASK]`.
        rate: share of tokens to predict.
        masked: share of these that becomes `[MASK]`.
        random: share of these that becomes a random id; the rest is kept.
        random_from: lowest random id. UNITER starts at `!`, the others draw from the whole vocabulary.
        at_least_one: predict the first token of a row if chance chose none (UNITER).
        continuations: ids of word pieces that continue a word; if given, whole words are chosen (VL-BERT). A
            run fills in `auto` from its vocabulary.
    """

    mask_id: int = 103
    special: Collection[int] = (0, 101, 102, 103)
    rate: int | float = 0.15
    masked: int | float = 0.8
    random: int | float = 0.1
    random_from: int = 0
    at_least_one: bool = False
    continuations: Collection[int] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1 or self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
            raise ConfigError(
                f"words are masked with rate={self.rate}, masked={self.masked}, random={self.random}; "
                "expected shares from 0 to 1, and masked and random together at most 1."
            )

    def __call__(
        self,
        text: PaddedText,
        generator: torch.Generator | None,
        *,
        vocab_size: int,
        rows: Bool[Tensor, " B"] | None = None,
    ) -> tuple[PaddedText, Int[Tensor, "B T"]]:
        """Return the corrupted text, and the id to predict for each token or -1.

        Args:
            vocab_size: random ids are below it.
            rows: mask of the rows that may be corrupted; None means all.
        """
        ids, device = text.ids, text.ids.device
        eligible = text.mask & ~is_in(ids, self.special)
        if rows is not None:
            eligible = eligible & rows[:, None]
        draw = torch.rand(ids.shape, generator=generator, device=device)
        if self.continuations:
            # All pieces of word number n take the n-th random number, so they are chosen together.
            # Example: `play ##ing ball` counts 1 1 2, so `##ing` takes the draw of `play` and `ball` the next
            # one.
            word = (eligible & ~is_in(ids, self.continuations)).cumsum(1) - 1
            draw = draw.gather(1, word.clamp(min=0))
        if self.at_least_one:
            none = ~(eligible & (draw < self.rate)).any(1, keepdim=True)
            # A draw of 0 is below every rate, so this token is predicted, and below rate * masked, so it is
            # masked.
            draw = draw.masked_fill(none & eligible & (eligible.cumsum(1) == 1), 0.0)
        predicted = eligible & (draw < self.rate)
        other = torch.randint(self.random_from, vocab_size, ids.shape, generator=generator, device=device)
        # One uniform number decides both whether a token is predicted and what replaces it.
        kept = draw >= self.rate * (self.masked + self.random)
        shown = torch.where(draw < self.rate * self.masked, self.mask_id, torch.where(kept, ids, other))
        # -1 and not 0, which is the id of [PAD].
        return replace(text, ids=torch.where(predicted, shown, ids)), torch.where(predicted, ids, -1)


class TiedWords(nn.Module):
    """Scores of words: Linear, GELU, LayerNorm, then the model's word table (tied weights) and a bias."""

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        words = model.word_embedding()
        if words is None or words.embedding_dim != model.text_dim:
            raise ConfigError(
                f"{type(model).__name__} has text states of width {model.text_dim}; masked words need states "
                "as wide as the word table. Use a model that reads text, or remove this objective."
            )
        self.transform = first_layers(model.text_dim, std=initial_std(model))
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))

    def forward(self, states: Float[Tensor, "... D"], table: Float[Tensor, "V D"]) -> Float[Tensor, "... V"]:
        return functional.linear(self.transform(states), table, self.bias)


class MaskedText(Objective):
    """Masked language modeling. The decoder runs on the predicted tokens only, with the same result.

    Args:
        masking: how tokens are masked.
        matched_only: do not mask mismatched pairs, as in ViLBERT. LXMERT, VisualBERT, Oscar and Vilio mask
            them, too.
        by: see `average`. VL-BERT uses `rows`, the others average over all predicted tokens of the batch.
        apart: two losses, `captions` of rows with regions and `texts` of rows without, each averaged for
            itself. So VL-BERT learns from captions and text corpora at once.
    """

    reads = frozenset({"text"})
    parts: tuple[str, ...] = ("words",)

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        masking: WordMasking | None = None,
        matched_only: bool = False,
        by: str = "all",
        apart: bool = False,
    ) -> None:
        super().__init__()
        self.masking = masking or WordMasking()
        self.matched_only = matched_only
        self.by = by
        self.parts = ("captions", "texts") if apart else self.parts
        self.head = TiedWords(model)

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        text = sample.inputs.text
        assert text is not None, "a model with text states reads text"
        rows = sample.intact() if self.matched_only else None
        text, words = self.masking(text, generator, vocab_size=len(self.head.bias), rows=rows)
        return sample.ask(replace(sample.inputs, text=text), words=words)

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        assert encoding.text is not None
        if sample.words is None:
            return dict.fromkeys(self.parts, zero_loss(encoding.text))
        return {
            part: word_loss(self.head, model, encoding.text, words, by=self.by)
            for part, words in self._asked(sample.inputs, sample.words).items()
        }

    def grade(self, model: VisionLanguageModel, encoding: Encoding, sample: Sample) -> dict[str, Grades]:
        if sample.words is None:
            return {}
        table = model.word_embedding()
        assert encoding.text is not None and table is not None
        found: dict[str, Grades] = {}
        for part, words in self._asked(sample.inputs, sample.words).items():
            logits = self.head(encoding.text[words >= 0], table.weight)
            found[part] = grades(logits, words[words >= 0], words >= 0)
        return found

    def _asked(self, inputs: Inputs, words: Int[Tensor, "B T"]) -> dict[str, Int[Tensor, "B T"]]:
        """The ids to predict for each part."""
        if len(self.parts) == 1:
            return {self.parts[0]: words}
        # Each part keeps its own rows; -1 leaves a token out.
        seeing = seeing_rows(inputs)[:, None]
        return {"captions": words.masked_fill(~seeing, -1), "texts": words.masked_fill(seeing, -1)}


def word_loss(
    head: Callable[[Tensor, Tensor], Tensor],
    model: VisionLanguageModel,
    states: Float[Tensor, "B T D"],
    words: Int[Tensor, "B T"],
    *,
    by: str = "all",
) -> Float[Tensor, ""]:
    """Cross entropy of the predicted words.

    Args:
        head: function of states and the word table that returns scores.
        words: id to predict for each token; -1 for tokens that are not predicted.
        by: see `average`.
    """
    predicted = words >= 0
    table = model.word_embedding()
    assert table is not None, "the head was built on it"
    # Predicted tokens only: scores of all positions times 30,000 words would take most of the memory.
    scores = head(states[predicted], table.weight).float()
    return average(functional.cross_entropy(scores, words[predicted], reduction="none"), predicted, by=by)


def is_in(ids: Int[Tensor, "B T"], some: Collection[int]) -> Bool[Tensor, "B T"]:
    """Mask of the ids that are in `some`."""
    return torch.isin(ids, torch.tensor(sorted(some), dtype=ids.dtype, device=ids.device))
