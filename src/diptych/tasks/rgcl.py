"""RGCL: classification on fused CLIP vectors that retrieval has pulled together and pushed apart.

Mei et al., 2024, https://arxiv.org/abs/2311.08110. Original: JingbiaoMei/RGCL. Differences, each undone by
`compat` where a number depends on it: an example is not its own positive; an example may have more hard
negatives than positives; a positive that does not exist is left out of the mean and is no zero vector;
positives of a batch are averaged over those that exist. Always: no gradient flows into the bank, the vector
and the logit of an example come from one pass, and the bank has the order of the training set.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn import FusionHead, Pooled, Towers, VectorHead, nearest_cases, require_rates, votes
from diptych.tasks.classify import Classify
from diptych.types import Batch, Encoding, Outcome, VisionLanguageModel

METRICS, LOSSES = ("cos", "ip", "l2"), ("triplet", "contrastive", "naive")
SURE = 1e-6  # a vote is kept so far from certainty, whose logit is infinite


@dataclass(frozen=True)
class Guidance:
    """How the vectors of a batch are compared with each other and with the bank.

    Args:
        loss: `triplet`, `contrastive` or `naive`.
        metric: `cos`; `ip`, the product divided by the width; or `l2`, the negative squared distance divided
            by the width.
        margin: of the loss `triplet`.
        hard: number of nearest cases with another label, which are pushed away.
        gold: number of nearest cases with the same label, which are pulled near (pseudo-gold positives); 0
            takes the rows of the batch with the same label instead.
        unit: divide vectors by their length before they are compared by `l2`.
        compat: the original's way, see the module.
        depth: with `compat`, so many times as many nearest cases are looked at as are wanted.
    """

    loss: str = "triplet"
    metric: str = "cos"
    margin: float = 0.1
    hard: int = 1
    gold: int = 1
    unit: bool = False
    compat: bool = False
    depth: int = 12

    def __post_init__(self) -> None:
        if self.loss not in LOSSES or self.metric not in METRICS:
            raise ConfigError(
                f"task.contrast is {self.loss!r} and task.metric {self.metric!r}; expected one of "
                f"{', '.join(LOSSES)}, and one of {', '.join(METRICS)}."
            )
        if min(self.hard, self.gold) < 0 or self.margin < 0 or self.depth < 1:
            raise ConfigError(
                f"task.hard is {self.hard}, task.gold {self.gold}, task.margin {self.margin}, task.depth "
                f"{self.depth}; expected numbers from 0, and a depth from 1."
            )

    def similarity(
        self, left: Float[Tensor, "B #K D"], right: Float[Tensor, "#B K D"]
    ) -> Float[Tensor, "B K"]:
        """Compare row by row; larger is more similar."""
        if self.metric == "cos":
            return F.cosine_similarity(left, right, dim=-1, eps=1e-8)
        if self.metric == "ip":
            return (left * right).sum(-1) / left.shape[-1]
        if self.unit:
            left, right = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
        return -(left - right).square().sum(-1) / left.shape[-1]

    @torch.no_grad()
    def find(
        self,
        vectors: Float[Tensor, "B D"],
        bank: Float[Tensor, "N D"],
        *,
        same: Bool[Tensor, "B N"],
        other: Bool[Tensor, "B N"],
        itself: Bool[Tensor, "B N"],
    ) -> tuple[Int[Tensor, "B h"], Int[Tensor, "B g"]]:
        """Rows of the hard negatives and of the pseudo-gold positives in the bank; -1 where there is none.

        Args:
            same: cases with the label of the row.
            other: cases with another label.
            itself: cases that are the row's own example.
        """
        among = torch.ones_like(same) if self.compat else ~itself
        if self.compat:
            # Only so many nearest cases are looked at, of whatever label.
            deep = self.depth * (self.gold or self.hard)
            near = nearest_cases(vectors, bank, deep, unit=self.metric != "ip")[1]
            among = torch.zeros_like(same).scatter(1, near, True)
        rows = []
        for count, wanted in ((self.hard, other), (self.gold, same)):
            found = nearest_cases(vectors, bank, count, among=wanted & among, unit=self.metric != "ip")[1]
            # A bank smaller than wanted gives fewer columns; -1 says that there is none.
            rows.append(F.pad(found, (0, count - found.shape[1]), value=-1))
        return rows[0], rows[1]

    def __call__(
        self,
        vectors: Float[Tensor, "B D"],
        labels: Int[Tensor, " B"],
        bank: Float[Tensor, "N D"],
        hard: Int[Tensor, "B h"],
        gold: Int[Tensor, "B g"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the `total` loss, and the means of its parts `in_batch`, `hard` and `gold`."""
        same = labels[:, None] == labels
        own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        within = self.similarity(vectors[:, None], vectors[None])
        away = self.similarity(vectors[:, None], bank[hard])
        near = self.similarity(vectors[:, None], bank[gold])
        there = gold >= 0
        if self.compat:  # a zero vector stands for a missing positive
            zero = self.similarity(vectors[:, None], torch.zeros_like(bank[gold]))
            near, there = torch.where(there, near, zero), torch.ones_like(there)
        batch = _mean(within, ~same)
        if not self.gold:
            batch = batch - _mean(within, same & ~own)
        if self.loss == "contrastive":
            push, pull = _mean(away.exp(), hard >= 0), _mean(near.exp(), there)
            total = self._contrastive(within, same, same & ~own, push, pull)
        else:
            push, pull = (away * (hard >= 0)).sum(1), _mean(near, there)
            each = batch + push - pull
            total = (F.relu(each + self.margin) if self.loss == "triplet" else each).mean()
        return {"total": total, "in_batch": batch.mean(), "hard": push.mean(), "gold": pull.mean()}

    def _contrastive(
        self,
        within: Float[Tensor, "B B"],
        same: Bool[Tensor, "B B"],
        others: Bool[Tensor, "B B"],
        push: Float[Tensor, " B"],
        pull: Float[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """Mean of `-log(pull / (pull + negatives + push))`; `others` are other rows with the same label."""
        if not self.gold:
            # Compat: what is no positive counts as exp(0), so the mean is over all rows of the batch.
            pull = (within * others).exp().mean(1) if self.compat else _mean(within.exp(), others)
        negatives = (within.exp() * ~same).sum(1)
        # A row without any positive has nothing to pull, and its logarithm would be infinite.
        counts = pull > 0
        each = -torch.log(pull.where(counts, torch.ones_like(pull)) / (pull + negatives + push))
        return each[counts].mean() if bool(counts.any()) else within.sum() * 0


def _mean(values: Float[Tensor, "B K"], there: Bool[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """Mean over the entries that are there; 0 in a row without any."""
    return (values * there).sum(1) / there.sum(1).clamp(min=1)


class Rgcl(Classify):
    """A classifier whose vectors are trained so that the nearest training examples have the same label.

    The vectors of all training examples, the bank, are computed again before every epoch and every
    validation, and are part of the task's weights. So a decision may be a vote of the nearest cases, which
    can be shown.

    Args:
        cases: number of training examples; a run fills it in.
        fusion: as in `HateClipper`, or `pooled` for models with one vector per example, such as embeddings
            of a large language model (RA-HMD).
        dim: width of the mapped vectors of both towers.
        width: width of the layers after the fusion, and of the vectors that are compared.
        layers: Linears after the fusion; the last one is the vector.
        dropouts: rates after the maps, after the fusion, and after each layer.
        contrast: loss on the vectors, see `Guidance`, like the settings from `metric` to `depth`.
        share: share of the classification loss in the whole, in [0, 1]; 0 leaves it out.
        positive_weight: factor of the positive label in the classification loss.
        decide: `head`, the Linear after the vectors; or `cases`, the vote of the nearest ones.
        neighbors: cases that vote.
        weighting: weights of their votes, see `diptych.nn.votes`.
        refresh: steps after which the bank is computed again; 0 is once per epoch.

    The other arguments are those of `Classify`.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        labels: Sequence[str],
        pairs: int = 1,
        cases: int,
        fusion: str = "align",
        dim: int = 1024,
        width: int = 1024,
        layers: int = 3,
        dropouts: Sequence[int | float] = (0.2, 0.4, 0.1),
        batch_norm: bool = False,
        contrast: str = "triplet",
        metric: str = "cos",
        margin: int | float = 0.1,
        hard: int = 1,
        gold: int = 1,
        unit: bool = False,
        compat: bool = False,
        depth: int = 12,
        share: int | float = 0.5,
        positive_weight: int | float | None = None,
        decide: str = "head",
        neighbors: int = 20,
        weighting: str = "arithmetic",
        refresh: int = 0,
        class_weights: Sequence[float] | None = None,
        threshold: float = 0.5,
    ) -> None:
        _require_settings(labels, decide, positive_weight, share=share, counts=(neighbors, cases, refresh))
        require_rates(dropouts)
        deep: dict[str, Any] = {"width": width, "layers": layers, "batch_norm": batch_norm}
        head: Callable[[int, int], nn.Module] = partial(VectorHead, dropouts=dropouts[1:], **deep)
        if fusion != "pooled":
            widths = Towers(model, pairs).widths
            head = partial(FusionHead, widths=widths, dim=dim, fusion=fusion, dropouts=dropouts, **deep)
        super().__init__(
            model,
            labels=labels,
            pairs=pairs,
            readout=Pooled if fusion == "pooled" else Towers,
            head=head,
            class_weights=class_weights,
            threshold=threshold,
            loss="bce" if len(labels) == 2 else "ce",
        )
        self.guidance = Guidance(contrast, metric, float(margin), hard, gold, unit, compat, depth)
        self.share, self.positive_weight, self.decision = share, positive_weight, decide
        self.neighbors, self.weighting, self.cases, self.refresh = neighbors, weighting, cases, refresh
        # Buffers, so that a checkpoint resumes with them and a bundle can vote without the training set.
        self.register_buffer("bank", torch.zeros(cases, cast(FusionHead, self.head).embed_dim))
        self.register_buffer("bank_labels", torch.full((cases,), -1))  # -1: not computed yet
        self._numbers: dict[str, int] = {}  # of the examples by id; empty where nobody trains

    def know(self, ids: Sequence[str]) -> None:
        """Take the ids of the training examples, so that no example is compared with itself.

        Raises:
            ConfigError: there are not as many as cases.
        """
        if len(ids) != self.cases:
            raise ConfigError(f"task.cases is {self.cases} for {len(ids)} training examples; remove it.")
        # A split may have an example twice; both are the same example.
        self._numbers = {}
        self._places = torch.tensor([self._numbers.setdefault(one, len(self._numbers)) for one in ids])

    @torch.no_grad()
    def remember(self, model: VisionLanguageModel, batches: Iterable[Batch]) -> None:
        """Compute the bank; see `Trainable.remember`."""
        # Rows of the bank are those of the training set, because its batches come in order.
        place = 0
        for batch in batches:
            rows = slice(place, place + len(batch))
            encoding = model(batch.inputs, reads=self.reads)
            self.get_buffer("bank")[rows] = self.embed(encoding, batch).float()
            self.get_buffer("bank_labels")[rows] = _hard(batch.target())
            place += len(batch)

    def embed(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N D"]:
        """Return the vectors of examples that are compared with each other."""
        vectors: Tensor = cast(FusionHead, self.head).embed(self.readout(encoding, batch))
        return vectors

    def forward(
        self, model: VisionLanguageModel, batch: Batch, generator: torch.Generator | None = None
    ) -> Outcome:
        if batch.targets is None or not self.training:
            return super().forward(model, batch, generator)
        vectors = self.embed(model(batch.inputs, reads=self.reads), batch)
        logits = self.both_logits(cast(FusionHead, self.head).decide(vectors))
        # 0, but with a graph: with a share of 0, the last Linear would else have no gradient.
        logs, total = dict[str, Tensor](), logits.sum() * 0
        if self.share < 1:
            logs = self.compare(vectors.float(), batch)
            total = (1 - self.share) * logs.pop("total")
        if self.share > 0:
            total = total + self.share * self.loss(logits, batch)
        return Outcome(loss=total, logits=logits, logs={name: one.detach() for name, one in logs.items()})

    def compare(self, vectors: Float[Tensor, "B D"], batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Return the loss on vectors as `total`, and its parts; see `Guidance`."""
        bank, known = self.get_buffer("bank"), self.get_buffer("bank_labels")
        labels = _hard(batch.target())
        numbers = torch.tensor([self._numbers.get(one, -1) for one in batch.ids])[:, None]
        # Where nobody trains, no example of the bank is known, and none can be the row's own.
        itself = (numbers == self._places) if self._numbers else numbers.expand(-1, len(bank)) >= 0
        same = labels[:, None] == known
        hard, gold = self.guidance.find(
            vectors,
            bank,
            same=same,
            other=~same & (known >= 0),
            itself=itself.to(vectors.device),
        )
        return self.guidance(vectors, labels, bank, hard, gold)

    def score(self, encoding: Encoding, batch: Batch) -> Float[Tensor, "N C"]:
        vectors = self.embed(encoding, batch)
        if self.decision == "cases" and not self.training:
            # In [-1, 1]; half of it and of 1 is a probability, of which these are the logits.
            score = self.nearest(vectors)[0].sum(1).clamp(SURE - 1, 1 - SURE)
            return torch.stack([(1 - score) / 2, (1 + score) / 2], -1).log()
        return self.both_logits(cast(FusionHead, self.head).decide(vectors))

    def nearest(self, vectors: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
        """The nearest cases: the contribution of each to the vote, and its row in the training set."""
        bank, known = self.get_buffer("bank"), self.get_buffer("bank_labels")
        # Cases that were never computed are zeros, and would be found.
        among = (known >= 0).expand(len(vectors), -1)
        similarities, rows = nearest_cases(vectors.float(), bank, self.neighbors, among=among)
        return votes(similarities, known[rows] == 1, weighting=self.weighting), rows

    def loss(self, logits: Float[Tensor, "N C"], batch: Batch) -> Float[Tensor, ""]:
        if self.positive_weight is None:
            return super().loss(logits, batch)
        # Divided by the number of examples and not by the sum of weights, as in torch's binary loss.
        target = batch.target()
        positive = target.float() if target.ndim == 1 else target[:, 1]
        losses = F.binary_cross_entropy_with_logits(
            logits[:, 1] - logits[:, 0],
            positive,
            pos_weight=torch.tensor(float(self.positive_weight), device=logits.device),
            reduction="none",
        )
        return (losses if batch.weights is None else losses * batch.weights).mean()


def _require_settings(
    labels: Sequence[str],
    decide: str,
    positive_weight: int | float | None,
    *,
    share: int | float,
    counts: tuple[int, int, int],
) -> None:
    neighbors, cases, refresh = counts
    only_two = decide == "cases" or positive_weight is not None
    if decide not in ("head", "cases") or (only_two and len(labels) != 2):
        raise ConfigError(
            f"task.decide is {decide!r} for {len(labels)} labels; expected 'head', or 'cases' for two "
            "labels, which task.positive_weight needs, too."
        )
    if not 0 <= share <= 1 or neighbors < 1 or cases < 1 or refresh < 0:
        raise ConfigError(
            f"task.share is {share} (from 0 to 1), task.neighbors {neighbors} (from 1), task.cases {cases} "
            f"(from 1), task.refresh {refresh} (from 0)."
        )


def _hard(targets: Tensor) -> Int[Tensor, " N"]:
    """The likeliest class of each example, whose label may be soft."""
    return targets if targets.ndim == 1 else targets.argmax(-1)
