"""Contrastive pre-training of dual encoders: every text of a step against every picture."""

import torch
import torch.distributed as distributed
from jaxtyping import Float
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.tasks.objectives.base import Grades, Objective, Sample
from diptych.types import Encoding, VisionLanguageModel


class Contrast(Objective):
    """Tells the text of a picture from the other texts of the step, and the other way round.

    Rows of all processes are gathered, with gradients: N processes with B rows compare N x B pairs.
    The negatives depend on the size of a batch, so use the largest that fits; accumulated batches add none.

    Args:
        loss: `softmax` is CLIP's: cross entropy over the texts of each picture and over the pictures of each
            text, averaged. `sigmoid` is SigLIP's: the sum of the binary cross entropies of all pairs, divided
            by the number of rows.
    """

    reads = frozenset({"joint_image", "joint_text"})
    parts = ("contrast",)

    def __init__(self, model: VisionLanguageModel, *, loss: str = "softmax") -> None:
        super().__init__()
        if loss not in ("softmax", "sigmoid"):
            raise ConfigError(f"the contrastive loss is {loss!r}; expected 'softmax' or 'sigmoid'.")
        if not hasattr(model, "compare"):
            raise ConfigError(
                f"Contrast compares joint vectors, which {type(model).__name__} does not have; use a dual "
                "encoder such as clip_b32."
            )
        self.kind = loss

    def forward(
        self, model: VisionLanguageModel, encoding: Encoding, sample: Sample
    ) -> dict[str, Float[Tensor, ""]]:
        logits, right = self._compare(model, encoding)
        if self.kind == "softmax":
            # Of the gathered pairs, a process grades its own rows; the gradients of all are averaged later.
            loss = functional.cross_entropy(logits[0], right) + functional.cross_entropy(logits[1], right)
            return {"contrast": loss / 2}
        own = functional.one_hot(right, logits[0].shape[1]) * 2 - 1
        return {"contrast": -functional.logsigmoid(logits[0] * own).sum() / len(own)}

    def grade(self, model: VisionLanguageModel, encoding: Encoding, sample: Sample) -> dict[str, Grades]:
        """Grade 1 where the picture's own text is the closest one."""
        logits, right = self._compare(model, encoding)
        best = (logits[0].argmax(1) == right).float()
        return {"contrast": Grades(best, torch.arange(len(best), device=best.device))}

    def _compare(
        self, model: VisionLanguageModel, encoding: Encoding
    ) -> tuple[tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]], Tensor]:
        """Logits of own pictures against all texts, of own texts against all pictures, and the right ones."""
        image, text = encoding.joint_image, encoding.joint_text
        assert image is not None and text is not None
        # In single precision: cosines times 100 lose their differences in half precision.
        image, text = image.float(), text.float()
        images, texts, first = image, text, 0
        # In training only: processes validate different numbers of batches and would wait for each other.
        if self.training and distributed.is_available() and distributed.is_initialized():
            counts = _counts(image)
            images, texts = _gathered(image, counts), _gathered(text, counts)
            first = sum(counts[: distributed.get_rank()])
        right = torch.arange(first, first + len(image), device=image.device)
        compare = model.compare  # type: ignore[attr-defined]
        return (compare(image, texts), compare(images, text).T), right


def _counts(rows: Float[Tensor, "B J"]) -> list[int]:
    """Numbers of rows of all processes; the last batch of an epoch may be smaller on some."""
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=rows.device)
    counts[distributed.get_rank()] = len(rows)
    distributed.all_reduce(counts)
    return [int(count) for count in counts]


def _gathered(rows: Float[Tensor, "B J"], counts: list[int]) -> Float[Tensor, "M J"]:
    """Rows of all processes in the order of their ranks."""
    # Gathering takes equal shapes, so smaller batches are padded and cut again.
    padded = functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    # torch's plain `all_gather` has no gradient; this one has.
    parts = all_gather(padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
