"""Oscar's contrast: some rows get the object names of another image, or its caption; the model says which."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from diptych.errors import ConfigError
from diptych.tasks.objectives.base import Sample
from diptych.tasks.objectives.matching import Matching, strangers
from diptych.types import PaddedText, VisionLanguageModel


class TagContrast(Matching):
    """Which part of `[CLS] caption [SEP] names [SEP]` is another image's: none, the names or the caption.

    VisualBERT's second caption is the same with `matches=1`. Strangers are as in `Matching`; a row
    without a second text stays. One that would grow longer than the batch loses the end of its longer part.

    Args:
        matches: class of an intact row, 0 in the original.
        classes: 2, or 3 where captions are exchanged as well (Oscar+).
        rate: share of rows with another's names: 0.5, in Oscar+ 0.25.
        caption_rate: share of rows with another's caption: 0, in Oscar+ 0.25.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        matches: int = 0,
        classes: int = 2,
        rate: int | float = 0.5,
        caption_rate: int | float = 0.0,
    ) -> None:
        super().__init__(model, matches=matches, classes=classes, rate=rate)
        if caption_rate and classes < 3:
            raise ConfigError(f"caption_rate is {caption_rate} with {classes} classes; expected 3.")
        self.caption_rate = caption_rate

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        text = sample.inputs.text
        assert text is not None, "the contrast is between texts"
        other, possible = strangers(sample.inputs, generator)
        draw = torch.rand(len(other), generator=generator, device=other.device)
        possible &= (text.mask & (text.segments == 1)).any(1)
        names = possible & (draw < self.rate)
        caption = possible & ~names & (draw < self.rate + self.caption_rate)
        text = combine(text, other, caption, names)
        return sample.ask(replace(sample.inputs, text=text), broken=names + 2 * caption)


def combine(
    text: PaddedText, other: Int[Tensor, " B"], first: Bool[Tensor, " B"], second: Bool[Tensor, " B"]
) -> PaddedText:
    """Texts whose first or second segment is another row's.

    Args:
        first: rows that take the first segment of row `other`.
        second: rows that take its second segment.
    """
    own = torch.arange(len(other), device=other.device)
    a, b = torch.where(first, other, own), torch.where(second, other, own)
    lengths = text.mask.sum(1)
    starts = (text.mask & (text.segments == 0)).sum(1)  # where second segments begin
    full_a, full_b = starts[a], (lengths - starts)[b]
    width = text.ids.shape[1]
    keep_a = torch.minimum(full_a, width - full_b.clamp(max=width // 2))
    keep_b = torch.minimum(full_b, width - keep_a)
    place = torch.arange(width, device=other.device).expand_as(text.ids)
    in_a, inside = place < keep_a[:, None], place < (keep_a + keep_b)[:, None]
    # the last token of a part is its [SEP], however much of the part is cut off
    from_a = torch.where(place == keep_a[:, None] - 1, full_a[:, None] - 1, place)
    offset = place - keep_a[:, None]
    from_b = starts[b][:, None] + torch.where(offset == keep_b[:, None] - 1, full_b[:, None] - 1, offset)
    from_a, from_b = (index.clamp(0, width - 1) for index in (from_a, from_b))
    ids = torch.where(in_a, text.ids[a].gather(1, from_a), text.ids[b].gather(1, from_b))
    return PaddedText(
        ids=ids.masked_fill(~inside, 0), mask=inside, segments=(inside & ~in_a).to(text.segments.dtype)
    )
