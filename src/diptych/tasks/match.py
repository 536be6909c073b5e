"""Image-text matching, for retrieval of images by text and of texts by image."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, Pooled, Readout
from diptych.predictions import Predictions
from diptych.tasks.base import RightPair, Task, build_head, exchanged, same_rows, score_pairs
from diptych.types import Batch, Encoding, Outcome, VisionLanguageModel

LOSSES = ("bce", "ce", "margin")
LOWEST = torch.finfo(torch.float32).min  # above -inf, which rows with the same image have


class Match(Task):
    """Scores every pair with one logit; larger means a better match.

    For training, an example has one pair and the target 0 or 1, or several pairs and the index of the right
    one as target. For retrieval, predict examples of one pair with ids of the form `image|text`.

    Args:
        matches: index of the class "matches" for a head with two outputs, which differs between checkpoints;
            the logit is the difference of the two. None is for a head with one output.
        readout: function of the model and the number of pairs (1) that builds the readout.
        head: function of the input width and the number of outputs (1 or 2) that builds the head.
        loss: `bce` is the binary cross entropy of each pair, which equals the cross entropy of two outputs.
            `ce` is cross entropy over the pairs of an example. `margin` is the mean of
            `max(0, margin + wrong - right)` over the wrong pairs of all examples, on sigmoids.
        margin: margin of the loss `margin`, in [0, 1].
        hard: train every true pair beside its hardest wrong text and its hardest wrong image: of so many
            other rows of the batch, drawn at random, those that the model scores best. 0 trains on pairs as
            they are given.
        semi_hard: of these rows, take the best one that scores below the right pair, or the worst if all
            score above it. A model that knows nothing yet orders rows by chance; the hardest ones then teach
            it to undo its order, and it stays at chance (Schroff et al., 2015,
            https://arxiv.org/abs/1503.03832).
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        matches: int | None = None,
        readout: Callable[[VisionLanguageModel, int], Readout] = Pooled,
        head: Callable[[int, int], nn.Module] = ClassifierHead,
        loss: str = "bce",
        margin: int | float = 0.2,
        hard: int = 0,
        semi_hard: bool = False,
    ) -> None:
        super().__init__()
        if hard < 0 or (semi_hard and not hard):
            raise ConfigError(
                f"task.hard is {hard}; expected a number of rows, or 0, and with task.semi_hard at least 1."
            )
        self.hard, self.semi_hard = hard, semi_hard
        if loss not in LOSSES:
            raise ConfigError(f"task.loss is {loss!r}; expected one of {LOSSES}.")
        if matches not in (None, 0, 1):
            raise ConfigError(f"task.matches is {matches!r}; expected 0, 1 or null.")
        self.targets = RightPair()
        self.readout = readout(model, 1)
        self.reads = self.readout.reads
        self.matches, self.kind, self.margin = matches, loss, margin
        self.head = build_head(head, model, self.readout.dim, 1 if matches is None else 2)

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        if not (self.hard and self.training):
            return super().forward(model, batch, generator)
        if batch.targets is None or batch.pairs != 1 or not bool((batch.target() == 1).all()):
            raise ConfigError(
                "task.hard draws the wrong pairs itself; train on true pairs, without negatives."
            )
        same = same_rows(batch.inputs)
        possible = ~same.all(1)
        beside = self._beside_hardest(model, batch, same, generator)
        logits = self.score(model(beside.inputs, reads=self.reads), beside)
        if not bool(possible.any()):  # such as one example, the rest of an epoch
            return Outcome(loss=logits.sum() * 0, logits=logits)
        kept = replace(beside, targets=beside.target()[possible])
        return Outcome(loss=self.loss(logits[possible], kept), logits=logits)

    def _beside_hardest(
        self,
        model: VisionLanguageModel,
        batch: Batch,
        same: Bool[Tensor, "B B"],
        generator: torch.Generator | None,
    ) -> Batch:
        """Three pairs per example: the right one, one with a wrong text, one with a wrong image."""
        inputs, count = batch.inputs, len(same)
        if inputs.regions is None and inputs.pixels is None:
            raise ConfigError("task.hard exchanges texts and images, but the pairs have no image.")
        own = torch.arange(count, device=same.device)
        # The largest random numbers win; equal rows get -1, so they are drawn only if there are no others.
        chance = torch.rand(same.shape, generator=generator, device=same.device).masked_fill(same, -1.0)
        drawn, others = chance.topk(min(self.hard, count), 1)
        mine = own[:, None].expand_as(others)
        texts, images = torch.stack([others, mine]), torch.stack([mine, others])
        with torch.no_grad():  # only the hardest ones get gradients
            trial = replace(batch, inputs=exchanged(inputs, texts.flatten(), images.flatten()), targets=None)
            scores = self.score(model(trial.inputs, reads=self.reads), trial).reshape(texts.shape)
            if self.semi_hard:
                right = self.score(model(inputs, reads=self.reads), batch).reshape(1, count, 1)
                below = scores < right
                # Without a row below, the sign makes the worst one the best.
                scores = torch.where(below.any(-1, keepdim=True), scores.masked_fill(~below, LOWEST), -scores)
        best = scores.masked_fill(drawn < 0, -torch.inf).argmax(-1, keepdim=True)
        text, image = (others.gather(1, best[side])[:, 0] for side in range(2))
        return replace(
            batch,
            inputs=exchanged(
                inputs,
                torch.stack([own, text, own], 1).flatten(),
                torch.stack([own, own, image], 1).flatten(),
            ),
            pairs=3,
            targets=torch.zeros_like(own),
        )

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N P"]:
        logits = score_pairs(self.readout, self.head, encoding, batch)
        if self.matches is None:
            return logits.squeeze(-1)
        # The sigmoid of this difference is the softmax probability of "matches".
        return logits[..., self.matches] - logits[..., 1 - self.matches]

    def loss(self, logits: Float[Tensor, "N P"], batch: Batch) -> Float[Tensor, ""]:
        logits, targets = logits.float(), batch.target()
        # With `hard`, only the pairs of a validation set are single.
        kind = "bce" if batch.pairs == 1 and self.hard else self.kind
        if batch.pairs == 1 and kind != "bce":
            raise ConfigError(
                f"task.loss={self.kind} compares the pairs of an example, but {batch.ids[0]} has only one; "
                "provide wrong pairs, too, or set task.loss=bce."
            )
        if kind == "ce":
            return functional.cross_entropy(logits, targets)
        # Of a single pair, the target says whether it matches; of several pairs, which one does.
        right = targets[:, None] if batch.pairs == 1 else functional.one_hot(targets, batch.pairs)
        if kind == "bce":
            return functional.binary_cross_entropy_with_logits(logits, right.float())
        scores = logits.sigmoid()
        violations = (self.margin + scores - scores.gather(1, targets[:, None])).clamp(min=0)
        return violations[right == 0].mean()  # the right pair itself would always count as the margin

    def decode(self, logits: Float[Tensor, "N P"], batch: Batch) -> Predictions:
        scores = logits.detach().double().sigmoid().cpu().numpy()
        if batch.pairs == 1:
            answers = tuple(str(int(score >= 0.5)) for score in scores[:, 0])
            return Predictions(ids=batch.ids, scores=scores, answers=answers, classes=("matches",))
        classes = tuple(map(str, range(batch.pairs)))
        answers = tuple(classes[index] for index in scores.argmax(-1))
        return Predictions(ids=batch.ids, scores=scores, answers=answers, classes=classes, form="choices")

    def measure(self, predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
        from diptych.metrics import measure_choices, measure_matches

        measure = measure_matches if predictions.classes == ("matches",) else measure_choices
        return measure(predictions, targets)
