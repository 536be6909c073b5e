"""Image-text matching: some rows get the text or image of another row, and the model detects them."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, initial_std
from diptych.tasks.base import same_rows
from diptych.tasks.objectives.base import Grades, Objective, Sample, grades, seeing_rows, zero_loss
from diptych.types import Encoding, Inputs, VisionLanguageModel


class Matching(Objective):
    """Predicts from the pooled vector whether text and image match; mean cross entropy over rows.

    Replacements come from the same batch, where the originals draw from all data. A row never gets a text or
    image of a row with the same text or the same image; if there is no other row, it keeps its own. Rows
    without regions take no part: they lend nothing, get nothing and are not asked.

    Args:
        matches: class of matching pairs: 1 in UNITER, LXMERT, VisualBERT, VL-BERT and Vilio, 0 in ViLBERT,
            DeVLBERT and Oscar.
        classes: 2, or 1 for a single logit with binary cross entropy (MM-BERT).
        exchange: `text` (LXMERT, ViLBERT, VL-BERT, Vilio) or `regions` (UNITER).
        rate: share of rows that become mismatched.
    """

    reads = frozenset({"pooled"})
    parts = ("match",)

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        matches: int = 1,
        classes: int = 2,
        exchange: str = "text",
        rate: int | float = 0.5,
    ) -> None:
        super().__init__()
        if classes < 1 or not 0 <= matches < max(classes, 2) or (classes == 1 and matches != 1):
            raise ConfigError(f"matches is {matches}; expected one of {classes} classes, or 1 for one logit.")
        if exchange not in ("text", "regions"):
            raise ConfigError(f"exchange is {exchange!r}; expected 'text' or 'regions'.")
        self.matches, self.classes, self.exchange, self.rate = matches, classes, exchange, rate
        self.head = ClassifierHead(model.dim, classes, std=initial_std(model))

    def corrupt(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        other, replaced = draw_other_rows(sample.inputs, generator)
        # Drawn for all rows, so that a row's fate does not depend on who else can be replaced.
        replaced &= torch.rand(len(replaced), generator=generator, device=replaced.device) < self.rate
        # Example of 3 rows in which row 0 is replaced by row 2: `take` is [2, 1, 2].
        take = torch.where(replaced, other, torch.arange(len(replaced), device=replaced.device))
        part = getattr(sample.inputs, self.exchange)
        changed = {self.exchange: part.map(lambda tensor: tensor[take])}
        return sample.ask(replace(sample.inputs, **changed), mismatch=replaced.long())

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        assert encoding.pooled is not None
        asked = seeing_rows(sample.inputs)
        if sample.mismatch is None or not asked.any():
            return {"match": zero_loss(encoding.pooled)}
        scores, mismatch = self.head(encoding.pooled[asked]).float(), sample.mismatch[asked]
        if self.classes == 1:
            together = (mismatch == 0).float()
            return {"match": functional.binary_cross_entropy_with_logits(scores[:, 0], together)}
        return {"match": functional.cross_entropy(scores, self.labels(mismatch))}

    def grade(self, model: VisionLanguageModel, encoding: Encoding, sample: Sample) -> dict[str, Grades]:
        if sample.mismatch is None:
            return {}
        assert encoding.pooled is not None
        asked = seeing_rows(sample.inputs)
        logits = self.head(encoding.pooled[asked])
        if self.classes == 1:
            # Two columns, so that the larger one is the decision of the sigmoid at 0.5.
            logits = torch.cat([-logits, logits], 1)
        return {"match": grades(logits, self.labels(sample.mismatch[asked]), asked[:, None])}

    def labels(self, mismatch: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return the class of each row: `matches` if intact, else the remaining classes in order."""
        others = mismatch - 1
        # The remaining classes in order: those from `matches` on move up by one.
        return torch.where(mismatch == 0, self.matches, others + (others >= self.matches))


def draw_other_rows(
    inputs: Inputs, generator: torch.Generator | None
) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
    """Draw for each row another row with another text and another image.

    Returns:
        The index of the other row, and whether there is one.
    """
    assert inputs.text is not None and inputs.regions is not None, "matching takes text and regions"
    same = same_rows(inputs)
    same |= ~inputs.regions.mask.any(1)  # rows without regions lend nothing
    # The largest random number wins; equal rows get -1, so they win only if there is no other row.
    chance = torch.rand(same.shape, generator=generator, device=same.device).masked_fill(same, -1.0)
    return chance.argmax(1), ~same.all(1) & inputs.regions.mask.any(1)
