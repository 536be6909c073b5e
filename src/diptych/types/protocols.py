"""What models, data sets, tokenizers and region sources have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from diptych.predictions import Predictions
from diptych.types.batches import EVERYTHING, Encoding, Inputs, Targets
from diptych.types.examples import Example, Tokens
from diptych.types.regions import FeatureMeta, Regions

Progress = Callable[[int, int], None]  # called with what is done, and what there is in all


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids; `diptych.text.WordPiece` is one. Travels to loader workers."""

    pad_id: int
    """Fills rows that are shorter than the longest of their batch."""
    mask_id: int
    """Stands for a token that pre-training hides."""
    special_ids: tuple[int, ...]
    """Tokens that are no part of a text; pre-training never hides them."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary in the order of ids."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for tokenizers that make equal tokens of every text."""
        ...

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        """Tokens of one text or of a pair, special tokens included, cut to `max_tokens`."""
        ...


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Any `nn.Module` with these.

    The widths are those of `Encoding.pooled`, `.text` and `.regions`; 0 means not provided.
    `needs` is a subset of {"text", "regions", "pixels", "vectors", "mentions", "labels"}. `reads` names the
    fields of the encoding that somebody looks at; what only the others need is not computed.
    """

    dim: int
    text_dim: int
    region_dim: int
    needs: frozenset[str]

    def word_embedding(self) -> nn.Embedding | None: ...

    def __call__(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding: ...


@runtime_checkable
class Dataset(Protocol):
    """One split of one benchmark; also a torch map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the official submission file."""
        ...


@runtime_checkable
class RegionSource(Protocol):
    """Regions by image key: a feature store, or a live detector."""

    meta: FeatureMeta

    def __getitem__(self, key: str) -> Regions: ...

    def __contains__(self, key: str) -> bool: ...

    def count(self, key: str) -> int:
        """Number of regions, without reading them."""
        ...


@runtime_checkable
class TargetEncoder(Protocol):
    """Examples to their targets, None when any of them is unlabeled. Travels to loader workers."""

    def __call__(self, examples: Sequence[Example]) -> Targets | None: ...
