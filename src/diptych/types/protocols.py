"""Protocols of models, data sets, tokenizers, region sources and target encoders."""

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
    """Converts text to token ids, as `diptych.text.WordPiece` does. Must be picklable for data workers."""

    pad_id: int
    """Token that pads rows to the longest of their batch."""
    mask_id: int
    """Token that replaces hidden tokens in pre-training."""
    special_ids: tuple[int, ...]
    """Tokens that are not part of a text; pre-training never hides them."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary in the order of ids."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest that is equal for tokenizers that give equal tokens for every text."""
        ...

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        """Tokenize a text or a pair, add the special tokens and truncate to `max_tokens`."""
        ...


@runtime_checkable
class VisionLanguageModel(Protocol):
    """An `nn.Module` that encodes images and texts.

    `dim`, `text_dim` and `region_dim` are the widths of `Encoding.pooled`, `.text` and `.regions`; 0 means
    that the model does not provide the field. `needs` names the inputs that the model reads, a subset of
    {"text", "regions", "pixels", "vectors", "mentions", "labels"}. The argument `reads` names the fields of
    the encoding that the caller uses; the model may skip the computation of all others.

    A model whose region encoder does not read the text may set the attribute `shares_regions` to True. It
    then accepts `PaddedRegions.shared`: prediction computes the regions of an image once for all its texts.
    With `shares_text`, it accepts `PaddedText.shared` for layers over the text that do not read the image.
    A model whose attention maps are not all over the text followed by the regions may say in a method
    `attention_places()` what they are over (`diptych.nn.AttentionPlaces`).
    """

    dim: int
    text_dim: int
    region_dim: int
    needs: frozenset[str]

    # For objectives that tie their decoder to it, and for the check of the vocabulary.
    def word_embedding(self) -> nn.Embedding | None: ...

    # A classifier reads `pooled` alone, for which the last layer needs one position.
    def __call__(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding: ...


@runtime_checkable
class Dataset(Protocol):
    """One split of a benchmark; also a map-style data set of torch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write predictions in the format of the benchmark's official submission file."""
        ...


@runtime_checkable
class RegionSource(Protocol):
    """Provides regions by image key: a feature store or a live detector."""

    # Compared with that of the training before a model is used.
    meta: FeatureMeta

    def __getitem__(self, key: str) -> Regions: ...

    def __contains__(self, key: str) -> bool: ...

    def count(self, key: str) -> int:
        """Return the number of regions without reading them."""
        ...


@runtime_checkable
class TargetEncoder(Protocol):
    """Converts the targets of examples to tensors; None if any is unlabeled. Must be picklable."""

    def __call__(self, examples: Sequence[Example]) -> Targets | None: ...
