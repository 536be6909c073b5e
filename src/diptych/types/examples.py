"""Examples of a data set, and tokenized texts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A span of a text, characters `start` to `stop`, that names region number `region` (VCR).

    Args:
        segment: 0 for `text`, 1 for `text_b` of the pair.
    """

    start: int
    stop: int
    region: int
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One image and one text.

    Args:
        image: key of the image. Two keys put the regions of both images into one row; None means text only.
        text_b: second segment (an answer, object names, the other language).
        more_texts: further texts with tokens of their own, such as a translation that a decoder reads. Every
            pair of a batch has as many.
        files: path of the picture of each key, relative to the root of the data set; empty if the keys are
            enough to find the pictures.
        mirrored: left and right of the picture are exchanged, for models that read pixels; see
            `diptych.data.Mirrored`.
    """

    # A key and no path: feature stores and folders of pictures name the same image by it.
    image: str | tuple[str, ...] | None
    text: str
    text_b: str | None = None
    mentions: tuple[Mention, ...] = ()
    files: tuple[str, ...] = ()
    more_texts: tuple[str, ...] = ()
    mirrored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example of a data set, about which a task makes one decision.

    Args:
        target: right answer in the form that the task expects; None if unknown.
        weight: factor of the example's loss in training.
        group: subset for which measures are reported separately, such as a country.
        meta: JSON values for writers and reports; models never see them.
    """

    id: str
    pairs: tuple[Pair, ...]
    # Each task has its own form: a class, scores by answer, the number of a pair, a box.
    target: Any = None
    weight: float = 1.0
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of a text or of a pair: `[CLS] text [SEP]` or `[CLS] text [SEP] text_b [SEP]`.

    Args:
        segments: 0 up to the first `[SEP]`, then 1.
        offsets: start and stop character of each token in its own text; (0, 0) for special tokens.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    # Characters, by which mentions find their tokens.
    offsets: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)
