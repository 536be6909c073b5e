"""A classification head whose classes are described in words."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.readout import Readout
from diptych.types import Batch, Encoding, Inputs, PaddedText, VisionLanguageModel


class JointImage(Readout):
    """Read the vector of the image in the joint space; for dual encoders with one pair per example."""

    reads = frozenset({"joint_image"})

    def __init__(self, model: VisionLanguageModel, pairs: int = 1) -> None:
        super().__init__()
        self.dim = int(getattr(model, "joint_dim", 0))
        if pairs != 1 or not self.dim:
            raise ConfigError(
                f"JointImage takes one pair and a model with joint vectors; got {pairs} "
                f"pair(s) and {type(model).__name__}. Use a model such as clip_b32."
            )

    def forward(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N J"]:
        assert encoding.joint_image is not None
        return encoding.joint_image


class PromptHead(nn.Module):
    """Scaled cosines of a joint vector with the vectors of the classes.

    `begin` makes the vector of a class from its prompts: the mean of their vectors of length 1, divided by
    its length (CLIP's ensemble of prompts). Before, it is zero; a bundle holds the vectors as weights.
    Without training this is zero-shot classification; with training, the prompts are a start (WiSE-FT).

    Args:
        prompts: prompts of each class, in the order of the task's labels.
        tokens: ids of every prompt; a run fills them in with the tokenizer of its processor.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        prompts: Mapping[str, Sequence[str]],
        tokens: Sequence[Sequence[Sequence[int]]] | None = None,
    ) -> None:
        super().__init__()
        if len(prompts) != classes or not all(prompts.values()):
            raise ConfigError(
                f"task.head.prompts has {', '.join(map(repr, prompts))}; expected at least one prompt for "
                f"each of {classes} labels."
            )
        self.prompts, self.tokens = dict(prompts), tokens
        # A parameter and no buffer, so that training can move it; `begin` fills it in.
        self.weight = nn.Parameter(torch.zeros(classes, dim))
        self.log_scale = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def begin(self, model: VisionLanguageModel) -> None:
        """Compute the vectors of the classes with a model whose weights are loaded.

        Raises:
            ConfigError: the prompts have not been tokenized.
        """
        self.weight.copy_(prompt_vectors(model, self.tokens, device=self.weight.device))
        scale = getattr(model, "logit_scale", None)
        if isinstance(scale, Tensor):
            # The model's own factor; 0, a factor of 1, would make all probabilities nearly even.
            self.log_scale.copy_(scale)

    def forward(self, x: Float[Tensor, "N J"]) -> Float[Tensor, "N C"]:
        # The logarithm is trained, so that the factor stays positive.
        scores: Tensor = self.log_scale.exp() * x @ self.weight.T
        return scores


@torch.no_grad()
def prompt_vectors(
    model: VisionLanguageModel,
    tokens: Sequence[Sequence[Sequence[int]]] | None,
    *,
    device: torch.device | None = None,
) -> Float[Tensor, "C J"]:
    """The vector of each class: the mean of the joint vectors of its prompts, divided by its length.

    Args:
        tokens: ids of the prompts of every class.

    Raises:
        ConfigError: the prompts have not been tokenized, or the model encodes no text.
    """
    if tokens is None:
        raise ConfigError("the prompts of the task have no tokens; a run fills them in.")
    rows = list[Tensor]()
    for ids in tokens:
        text = _padded(ids, device or torch.device("cpu"))
        vectors = model(Inputs(text=text), reads=frozenset({"joint_text"})).joint_text
        if vectors is None:
            raise ConfigError(f"{type(model).__name__} has no joint vectors of texts; remove the prompts.")
        # Length 1 again: the mean of different directions is shorter than each of them.
        rows.append(F.normalize(vectors.float().mean(0), dim=-1))
    return torch.stack(rows)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> PaddedText:
    # Any number may fill up: the text tower reads the last token of the mask.
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64, device=device)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, device=device)
        mask[number, : len(row)] = True
    return PaddedText(ids=ids, mask=mask, segments=torch.zeros_like(ids))
