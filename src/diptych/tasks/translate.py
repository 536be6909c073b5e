"""Translation: a sentence is generated token by token, from a text and, if there is one, its picture.

`TranslateMasked` is MM-BERT's form: the encoder itself predicts the next token at a `[MASK]`. `Translate`
adds a decoder that attends to the states of the encoder.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError, FormatError
from diptych.nn import Decoder, Seen, init_bert, initial_std
from diptych.predictions import Predictions
from diptych.tasks.base import Part, Predicting
from diptych.tasks.objectives.masked_text import TiedWords
from diptych.tasks.search import Search, beam_search
from diptych.text import detokenize, join_pieces
from diptych.types import (
    Batch,
    Encoding,
    Example,
    Inputs,
    Outcome,
    PaddedText,
    Tokenizer,
    VisionLanguageModel,
)

IGNORED = -1  # label of padding


@dataclass(frozen=True)
class SentenceIds:
    """Converts target sentences to token ids, each with `stop` behind it; -1 is padding.

    Args:
        max_length: largest number of tokens, `stop` included. A longer sentence is cut and has no `stop`: it
            is not over there.
    """

    text: Tokenizer
    stop: int
    max_length: int

    def __call__(self, examples: Sequence[Example]) -> Int[Tensor, "N L"] | None:
        if any(example.target is None for example in examples):
            return None
        rows = [self._ids(example) for example in examples]
        ids = torch.full((len(rows), max(map(len, rows))), IGNORED)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = torch.tensor(own)
        return ids

    def _ids(self, example: Example) -> list[int]:
        if not isinstance(example.target, str):
            raise FormatError(
                f"example {example.id} has the target {example.target!r:.80}; expected a sentence."
            )
        # One token more than fits, so that a cut sentence is known; [CLS] and [SEP] are left out.
        words = self.text.encode(example.target, max_tokens=self.max_length + 2).ids[1:-1]
        return [*words, self.stop][: self.max_length]


class Translation(Predicting):
    """Base of both forms. The target of an example is its translation.

    Args:
        text: tokenizer of both languages; its ids are rows of the model's word table.
        stop: token that ends a sentence. MM-BERT adds `[STOP]` to its vocabulary.
        search: how sentences are generated; validation takes the best token at every step (beam 1).
        label_smoothing: share of the probability that training spreads over all tokens, in [0, 1).
        special: whether special tokens other than `stop` may be generated, as in MM-BERT.
        detokenize: remove blanks around punctuation. MM-BERT's output keeps them.

    Raises:
        ConfigError: the vocabulary has no `stop`, or the beam is larger than the vocabulary.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        text: Tokenizer,
        stop: str,
        search: Search,
        label_smoothing: int | float,
        special: bool,
        detokenize: bool,
    ) -> None:
        super().__init__()
        self.text, self.tokens, self.detokenize = text, text.tokens, detokenize
        if stop not in self.tokens:
            raise ConfigError(
                f"task.stop is {stop!r}, but the vocabulary of {len(self.tokens)} tokens lacks it; expected "
                "a token that ends a sentence, such as [SEP]."
            )
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing is {label_smoothing}; expected a number in [0, 1).")
        self.stop, self.label_smoothing = self.tokens.index(stop), float(label_smoothing)
        self.special = set(() if special else text.special_ids) - {self.stop}
        self.targets = SentenceIds(text, self.stop, search.max_length)
        self.search = search
        self.head = TiedWords(model)

    @property
    def search(self) -> Search:
        """How sentences are generated; may be exchanged after training."""
        return self._search

    @search.setter
    def search(self, search: Search) -> None:
        if search.beam > len(self.tokens):
            raise ConfigError(
                f"the beam of {search.beam} is larger than the vocabulary of {len(self.tokens)} tokens; "
                "expected a smaller one, such as 5."
            )
        self._search = search

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        """Return the mean loss per token of the translations; there are no logits of an example."""
        if batch.targets is None:
            return Outcome(loss=None)
        logits, labels = self.score(model, batch, generator)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        return Outcome(loss=loss)

    @abstractmethod
    def score(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "M V"], Int[Tensor, " M"]]:
        """Return scores of tokens given the right ones before them, and the right tokens."""

    @abstractmethod
    def generate(self, model: VisionLanguageModel, batch: Batch, search: Search) -> list[list[int]]:
        """Return the token ids of the best sentence of each example, without the stop token."""

    def predict(self, model: VisionLanguageModel, batch: Batch) -> Predictions:
        return self._predict(model, batch, self.search)

    def _predict(self, model: VisionLanguageModel, batch: Batch, search: Search) -> Predictions:
        texts = tuple(map(self.sentence, self.generate(model, batch, search)))
        return Predictions(ids=batch.ids, texts=texts, form="translations")

    def sentence(self, ids: Sequence[int]) -> str:
        """Join tokens to a sentence."""
        words = join_pieces(self.tokens[one] for one in ids)
        return detokenize(words) if self.detokenize else words

    @torch.no_grad()
    def validate(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Part:
        """Return the loss of a batch, and sentences of greedy search."""
        loss = self(model, batch, generator).loss
        predictions = self._predict(model, batch, replace(self.search, beam=1))
        value = None if loss is None else loss.item()
        finite = loss is None or bool(loss.isfinite())
        return Part(count=len(batch), loss=value, result=predictions, finite=finite)

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics import measure_translations

        return measure_translations(predictions, targets)

    def _scores(self, model: VisionLanguageModel, states: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        table = model.word_embedding()
        assert table is not None, "the head was built on it"
        scores: Tensor = self.head(states, table.weight)
        return scores

    def _allowed(self, scores: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
        """Exclude tokens that no sentence has, and rows of the word table beyond the vocabulary."""
        # Before the softmax, so that their probability goes to the others.
        scores[:, [*self.special]] = -torch.inf
        scores[:, len(self.tokens) :] = -torch.inf
        return scores


class TranslateMasked(Translation):
    """The encoder reads `source prefix [MASK] [SEP]` and predicts the token at the mask.

    Nothing is kept from step to step, because every state sees the mask that moves on. All hypotheses of a
    step have prefixes of equal length, and finished ones leave the batch.

    Args:
        positions: number of tokens per sentence and step that are predicted in training, drawn at random;
            None predicts all, which takes as many rows as the sentence has tokens, like MM-BERT's reader.
    """

    # Regions are named although only the text is read: their rows are repeated, so images must not be shared.
    reads = frozenset({"text", "regions"})

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        text: Tokenizer,
        stop: str = "[SEP]",
        beam: int = 1,
        length_penalty: int | float = 0.6,
        max_length: int = 64,
        label_smoothing: int | float = 0.0,
        special: bool = False,
        detokenize: bool = True,
        positions: int | None = None,
    ) -> None:
        super().__init__(
            model,
            text=text,
            stop=stop,
            search=Search(beam=beam, length_penalty=length_penalty, max_length=max_length),
            label_smoothing=label_smoothing,
            special=special,
            detokenize=detokenize,
        )
        if positions is not None and positions < 1:
            raise ConfigError(f"task.positions is {positions}; expected a number from 1, or null for all.")
        self.positions = positions
        # [SEP] closes a text of this tokenizer, whatever ends a sentence here
        self.end = text.encode("", max_tokens=2).ids[-1]

    def score(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "M V"], Int[Tensor, " M"]]:
        ids = batch.target()
        # One row per predicted token: sentence `rows`, with the tokens before `places` as its prefix.
        rows, places = self._drawn(ids != IGNORED, generator).nonzero(as_tuple=True)
        before = torch.arange(ids.shape[1], device=ids.device) < places[:, None]
        prefixes = ids[rows].masked_fill(~before, self.text.pad_id)
        return self._next(model, batch.inputs, rows, prefixes, before), ids[rows, places]

    def _drawn(self, real: Bool[Tensor, "N L"], generator: torch.Generator | None) -> Bool[Tensor, "N L"]:
        if self.positions is None or not self.training:
            return real
        draw = torch.rand(real.shape, generator=generator, device=real.device).masked_fill(~real, -1.0)
        best = draw.topk(min(self.positions, real.shape[1])).indices
        return torch.zeros_like(real).scatter(1, best, True) & real

    def _next(
        self,
        model: VisionLanguageModel,
        inputs: Inputs,
        rows: Int[Tensor, " M"],
        prefixes: Int[Tensor, "M L"],
        real: Bool[Tensor, "M L"],
    ) -> Float[Tensor, "M V"]:
        """Scores of the token after each prefix of the example `rows`."""
        given = replace(inputs, more_texts=()).map(lambda one: one[rows])
        assert given.text is not None, "a model with a word table reads text"
        text, place = self._append(given.text, prefixes, real)
        states = model(replace(given, text=text), reads=frozenset({"text"})).text
        assert states is not None, "the head was built on text states"
        return self._scores(model, states[torch.arange(len(rows), device=rows.device), place])

    def _append(
        self, text: PaddedText, prefixes: Int[Tensor, "M L"], real: Bool[Tensor, "M L"]
    ) -> tuple[PaddedText, Int[Tensor, " M"]]:
        """Write prefix, mask and end directly behind each text; also returns the place of the mask.

        Without a gap: most models count positions over the row, not over its real tokens.
        """
        place = text.mask.sum(1) + real.sum(1)
        width = int(place.max()) + 2

        def widen(values: Tensor, padding: int | bool) -> Tensor:
            return functional.pad(values, (0, max(0, width - values.shape[1])), value=padding)[:, :width]

        ids, mask = widen(text.ids, self.text.pad_id), widen(text.mask, False)
        behind = text.mask.sum(1, keepdim=True) + real.cumsum(1) - 1
        # Tokens that are not real go to a column of their own, which is cut off.
        target = torch.where(real, behind, width)
        ids = functional.pad(ids, (0, 1)).scatter(1, target, prefixes)[:, :width]
        ids = ids.scatter(1, place[:, None], self.text.mask_id).scatter(1, place[:, None] + 1, self.end)
        mask = torch.arange(width, device=ids.device) < place[:, None] + 2
        return PaddedText(
            ids=ids.masked_fill(~mask, self.text.pad_id),
            mask=mask,
            segments=widen(text.segments, 0),  # MM-BERT has segment 0 for both languages
            mentions=None if text.mentions is None else widen(text.mentions, -1),
        ), place

    def generate(self, model: VisionLanguageModel, batch: Batch, search: Search) -> list[list[int]]:
        rows = torch.arange(len(batch), device=self.head.bias.device)

        def score(ids: Int[Tensor, "H L"], parents: Int[Tensor, " H"]) -> Float[Tensor, "H V"]:
            nonlocal rows
            rows = rows[parents]
            # MM-BERT may generate [PAD], which its own mask then leaves out
            return self._allowed(self._next(model, batch.inputs, rows, ids, ids != self.text.pad_id))

        return beam_search(score, len(batch), stop=self.stop, search=search, device=rows.device)


class Translate(Translation):
    """A causal decoder over the states of the encoder's text and regions, with the encoder's word table.

    Args:
        layers: number of the decoder's layers.
        heads: attention heads; each layer is as wide as the text states.
        hidden: width of the feed-forward layers.
        max_length: largest number of tokens of a sentence, which is also the number of positions.
        warm_start: copy layers and positions from the model, which may hold weights of BERT.
        dropout: rate in the decoder, attention included.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        text: Tokenizer,
        layers: int = 6,
        heads: int = 12,
        hidden: int = 3072,
        stop: str = "[SEP]",
        beam: int = 5,
        length_penalty: int | float = 0.6,
        max_length: int = 64,
        label_smoothing: int | float = 0.1,
        special: bool = False,
        detokenize: bool = True,
        warm_start: bool = True,
        dropout: int | float = 0.1,
    ) -> None:
        super().__init__(
            model,
            text=text,
            stop=stop,
            search=Search(beam=beam, length_penalty=length_penalty, max_length=max_length),
            label_smoothing=label_smoothing,
            special=special,
            detokenize=detokenize,
        )
        self.reads = frozenset({"text", "regions"} if model.region_dim else {"text"})
        dim, rate = model.text_dim, float(dropout)
        self.decoder = Decoder(
            layers,
            dim,
            heads=heads,
            hidden=hidden,
            max_positions=max_length,
            dropout=rate,
            attention_dropout=rate,
        )
        # ViLBERT's regions are wider than its words.
        same = model.region_dim in (0, dim)
        self.project = nn.Identity() if same else nn.Linear(model.region_dim, dim)
        for part in (self.decoder, self.project):
            init_bert(part, std=initial_std(model))
        if warm_start and isinstance(model, nn.Module):
            self.decoder.start_from(model)
        self.start = text.encode("", max_tokens=2).ids[0]  # [CLS]

    def score(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "M V"], Int[Tensor, " M"]]:
        ids = batch.target()
        real = ids != IGNORED
        before = functional.pad(ids, (1, 0), value=self.start)[:, :-1]
        seen = self._look(model(batch.inputs, reads=self.reads), batch.inputs)
        states, _ = self.decoder(self._words(model, before.masked_fill(before == IGNORED, self.stop)), seen)
        return self._scores(model, states[real]), ids[real]

    def _words(self, model: VisionLanguageModel, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        table = model.word_embedding()
        assert table is not None, "the head was built on it"
        words: Tensor = table(ids)
        return words

    def _look(self, encoding: Encoding, inputs: Inputs) -> Seen:
        assert encoding.text is not None and inputs.text is not None, "the head was built on text states"
        states, masks = [encoding.text], [inputs.text.mask]
        if encoding.regions is not None and inputs.regions is not None:
            states.append(self.project(encoding.regions))
            masks.append(inputs.regions.mask)
        return self.decoder.look(torch.cat(states, 1), torch.cat(masks, 1))

    def generate(self, model: VisionLanguageModel, batch: Batch, search: Search) -> list[list[int]]:
        seen = self._look(model(batch.inputs, reads=self.reads), batch.inputs)

        def score(ids: Int[Tensor, "H L"], parents: Int[Tensor, " H"]) -> Float[Tensor, "H V"]:
            nonlocal seen
            last = ids[:, -1:] if ids.shape[1] else ids.new_full((len(ids), 1), self.start)
            states, seen = self.decoder(self._words(model, last), seen.map(lambda one: one[parents]))
            return self._allowed(self._scores(model, states[:, -1]))

        return beam_search(score, len(batch), stop=self.stop, search=search, device=seen.mask.device)
