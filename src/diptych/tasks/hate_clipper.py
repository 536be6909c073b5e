"""Hate-CLIPper: classification on the fused vectors of CLIP's towers, with losses of each side alone.

Kumar and Nandakumar, 2022, https://arxiv.org/abs/2210.05916. Original: gokulkarthik/hateclipper.
Difference: without layers after the fusion, the heads of one side have the width of that side, where the
original's have that of the fusion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn import FusionHead, Towers, stack
from diptych.tasks.classify import Classify
from diptych.types import Batch, Example, Outcome, TargetEncoder, Targets, VisionLanguageModel


class HateClipper(Classify):
    """Maps the vectors of both towers to one width, divides them by their length, fuses and decides.

    Args:
        fusion: `align` (product), `concat`, `cross` (all products: width `dim` squared) or `align_concat`.
        dim: width of the mapped vectors, and of the layers after the fusion.
        map_layers: Linears of each map.
        layers: Linears after the fusion and before the last one.
        dropouts: rates after the maps, after the fusion, and after each layer.
        image_loss: weight of the loss of a head that sees the image alone; 0 leaves it out.
        text_loss: the same for the text.
        fine: names of fine-grained labels, such as kinds of attack, each with a score and a binary loss. The
            examples have them as `fine` in their meta; a run takes them from the data set `data.fine`.
        fine_loss: weight of the mean loss of the fine-grained labels.
        loss: `bce` is one logit, for two labels; `ce` one per label; None chooses.

    The other arguments are those of `Classify`.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        labels: Sequence[str],
        pairs: int = 1,
        fusion: str = "align",
        dim: int = 1024,
        map_layers: int = 1,
        layers: int = 1,
        dropouts: Sequence[int | float] = (0.2, 0.4, 0.1),
        image_loss: int | float = 0.0,
        text_loss: int | float = 0.0,
        fine: Sequence[str] = (),
        fine_loss: int | float = 1.0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        threshold: float = 0.5,
        loss: str | None = None,
    ) -> None:
        if min(image_loss, text_loss, fine_loss) < 0:
            raise ConfigError(
                f"task.image_loss is {image_loss}, task.text_loss {text_loss}, task.fine_loss {fine_loss}; "
                "expected weights from 0."
            )
        # Built once to know the widths, and again as the readout, which `Classify` makes itself.
        widths = Towers(model, pairs).widths
        deep: dict[str, Any] = {"map_layers": map_layers, "layers": layers, "dropouts": dropouts}
        head = partial(FusionHead, widths=widths, dim=dim, fusion=fusion, **deep)
        super().__init__(
            model,
            labels=labels,
            pairs=pairs,
            readout=Towers,
            head=head,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            threshold=threshold,
            loss=loss or ("bce" if len(labels) == 2 else "ce"),
        )
        self.weights = {"image": image_loss, "text": text_loss}
        outputs = 1 if self.one_logit else len(self.labels)
        # Only the heads that have a loss: others would stay random, and be saved for nothing.
        self.alone = nn.ModuleDict(
            {
                side: nn.Sequential(
                    stack(dim, dim, layers=layers, dropouts=dropouts[1:]), nn.Linear(dim, outputs)
                )
                for side, weight in self.weights.items()
                if weight
            }
        )
        self.fine, self.fine_loss = tuple(fine), fine_loss
        self.fine_head = nn.Linear(cast(FusionHead, self.head).embed_dim, len(fine)) if fine else None
        self.targets = WithFine(self.targets, self.fine) if fine else self.targets

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        encoding = model(batch.inputs, reads=self.reads)
        head = cast(FusionHead, self.head)
        sides = head.mapped(self.readout(encoding, batch))
        # The mapped sides are used twice: fused, and by the heads that see one of them.
        vector = head.fused(*sides)
        logits = self.both_logits(head.decide(vector))
        if batch.targets is None:
            return Outcome(loss=None, logits=logits)
        plain, logs = self._plain(batch), dict[str, Tensor]()
        total = self.loss(logits, plain)
        for (name, weight), side in zip(self.weights.items(), sides, strict=True):
            if weight:
                logs[name] = self.loss(self.both_logits(self.alone[name](side)), plain)
                total = total + weight * logs[name]
        if self.fine_head is not None and isinstance(batch.targets, Mapping):
            # `fused` ends before the activation, which the last Linear expects.
            logs["fine"] = masked_bce(self.fine_head(F.relu(vector)), batch.target("fine"))
            total = total + self.fine_loss * logs["fine"]
        return Outcome(loss=total, logits=logits, logs={name: one.detach() for name, one in logs.items()})

    def loss(self, logits: Float[Tensor, "N C"], batch: Batch) -> Float[Tensor, ""]:
        return super().loss(logits, self._plain(batch))

    def _plain(self, batch: Batch) -> Batch:
        """The batch with the targets of `Classify` alone."""
        if not isinstance(batch.targets, Mapping):
            return batch
        # `Classify` knows nothing of the fine-grained labels beside it.
        return replace(batch, targets=batch.targets["label"])


@dataclass(frozen=True)
class WithFine:
    """Encodes the label of an example as `labels` does, and its fine-grained ones beside it.

    Entries are NaN where `meta` of an example does not say whether it has the label.
    """

    labels: TargetEncoder
    fine: tuple[str, ...]

    def __call__(self, examples: Sequence[Example]) -> Targets | None:
        label = self.labels(examples)
        if not isinstance(label, Tensor):
            return None
        rows = [[one.meta.get("fine", {}).get(name, torch.nan) for name in self.fine] for one in examples]
        return {"label": label, "fine": torch.tensor(rows, dtype=torch.float32)}


def masked_bce(logits: Float[Tensor, "N K"], targets: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """Binary cross entropy over the entries that are known; NaN in `targets` is unknown."""
    known = ~targets.isnan()
    # NaN times 0 is NaN, so unknown entries must be numbers before they are masked.
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)
