"""Oscar's contrastive objective: detect rows that got another image's object names or caption."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from diptych.errors import ConfigError
from diptych.tasks.objectives.base import Sample
from diptych.tasks.objectives.matching import Matching, draw_other_rows
from diptych.types import PaddedText, VisionLanguageModel


class TagContrast(Matching):
    """Predicts which part of `[CLS] caption [SEP] names [SEP]` was replaced: none, the names or the caption.

    VisualBERT's objective with a second caption is the same with `matches=1`. Replacements are drawn as in
    `Matching`; a row without a second text keeps its own. A row that becomes longer than the batch loses the
    end of its longer part.

    Args:
        matches: class of an intact row, 0 in the original.
        classes: 2, or 3 if captions are replaced as well (Oscar+).
        rate: share of rows with replaced names: 0.5, in Oscar+ 0.25.
        caption_rate: share of rows with a replaced caption: 0, in Oscar+ 0.25.
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
        other, possible = draw_other_rows(sample.inputs, generator)
        draw = torch.rand(len(other), generator=generator, device=other.device)
        # Without a second segment, neither the names nor the caption can be exchanged alone.
        possible &= (text.mask & (text.segments == 1)).any(1)
        # One draw for both: its range is cut into "names", "caption" and "intact".
        names = possible & (draw < self.rate)
        caption = possible & ~names & (draw < self.rate + self.caption_rate)
        text = combine(text, other, caption, names)
        # 0 intact, 1 other names, 2 another caption; `labels` turns them into classes.
        return sample.ask(replace(sample.inputs, text=text), mismatch=names + 2 * caption)


def combine(
    text: PaddedText, other: Int[Tensor, " B"], first: Bool[Tensor, " B"], second: Bool[Tensor, " B"]
) -> PaddedText:
    """Replace the first or second segment of some rows by that of another row.

    Args:
        other: index of the other row, for each row.
        first: mask of the rows that take the first segment of their other row.
        second: mask of the rows that take its second segment.
    """
    own = torch.arange(len(other), device=other.device)
    a, b = torch.where(first, other, own), torch.where(second, other, own)
    lengths = text.mask.sum(1)
    starts = (text.mask & (text.segments == 0)).sum(1)  # where second segments begin
    full_a, full_b = starts[a], (lengths - starts)[b]
    width = text.ids.shape[1]
    # Either part may have at least half of the width; what the shorter part does not use goes to the longer.
    # Example of width 8: parts of 6 and 5 keep 4 and 4; parts of 6 and 2 keep 6 and 2; parts of 2 and 7 keep
    # 2 and 6.
    keep_a = torch.minimum(full_a, width - full_b.clamp(max=width // 2))
    keep_b = torch.minimum(full_b, width - keep_a)
    place = torch.arange(width, device=other.device).expand_as(text.ids)
    in_a, inside = place < keep_a[:, None], place < (keep_a + keep_b)[:, None]
    # The last token of a part stays its [SEP], however much of the part is truncated.
    from_a = torch.where(place == keep_a[:, None] - 1, full_a[:, None] - 1, place)
    offset = place - keep_a[:, None]
    from_b = starts[b][:, None] + torch.where(offset == keep_b[:, None] - 1, full_b[:, None] - 1, offset)
    from_a, from_b = (index.clamp(0, width - 1) for index in (from_a, from_b))
    ids = torch.where(in_a, text.ids[a].gather(1, from_a), text.ids[b].gather(1, from_b))
    return PaddedText(
        ids=ids.masked_fill(~inside, 0), mask=inside, segments=(inside & ~in_a).to(text.segments.dtype)
    )
