"""Teach a trained model a new rule by 1, 5 and 20 examples: by a memory, and by fine-tuning on them.

The model has learned a miniature world of memes. Then a campaign appears that it has never seen: pictures of
benign memes with texts of advertisements, which are now hateful. Harmless texts of a new kind, invitations,
show who learns more than was taught. What the model knew is measured on the test split. Usage:

    diptych world memes --size 2000 --seed 1
    diptych train experiment=hateful_memes/uniter_tiny root=memes out=runs/mine
    python scripts/teach.py runs/mine --root memes
"""

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import cast

import numpy as np
import torch

from diptych.data import Collate
from diptych.datasets import HatefulMemes
from diptych.memory import Asked, Case, Memory, ask, fit_memory, recall_all, usual_parts
from diptych.metrics import auroc
from diptych.predict import Listed, Predictor, load, regions_of_run
from diptych.types import Example, RegionSource

TAUGHT, DRAWS, STEPS, RATE = (1, 5, 20), 3, 20, 1e-4
ADVERTISEMENTS = (
    ("get", "win", "grab", "earn"),
    ("free coins", "easy money", "cheap pills", "quick cash"),
    ("today", "tonight", "right now", "this week"),
    ("click the link below", "write to this number", "open my profile", "join the channel"),
)
INVITATIONS = (
    ("we", "my friends", "both of us", "all pupils"),
    ("meet", "eat pancakes", "sing", "plant trees"),
    ("in the yard", "at school", "near the bridge", "by the fountain"),
    ("on friday", "at noon", "after lunch", "before the holidays"),
)


@dataclass(frozen=True, kw_only=True)
class World:
    """Examples of each kind, and the source of their regions."""

    dev: list[Example]
    test: list[Example]
    campaign: list[Example]
    harmless: list[Example]
    store: RegionSource | None
    predictor: Predictor
    parts: tuple[str, ...]
    known: dict[tuple[str, ...], Asked] = field(default_factory=dict)

    def asked(self, examples: Sequence[Example]) -> Asked:
        """What the model says to examples; computed once."""
        ids = tuple(example.id for example in examples)
        if ids not in self.known:
            self.known[ids] = ask(self.predictor, Listed(examples), self.parts, features=self.store)
        return self.known[ids]

    def scores(self, predictor: Predictor, examples: Sequence[Example]) -> "np.ndarray":
        found = predictor.predict_dataset(Listed(examples), features=self.store)
        return cast("np.ndarray", found.scores)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parts", help="vectors to compare, comma-separated (default: the usual ones)")
    parser.add_argument("--memory-only", action="store_true", help="without fine-tuning")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = opened(
        arguments.run, arguments.root, tuple(arguments.parts.split(",") if arguments.parts else ())
    )
    rows = {"model alone": [measured(world, lambda examples: world.asked(examples).scores)]}
    for count in TAUGHT:
        draws = [
            np.random.default_rng(seed).permutation(len(world.campaign) // 2)[:count] for seed in range(DRAWS)
        ]
        taught = [[world.campaign[2 * row] for row in draw] for draw in draws]
        rows[f"memory, {count}"] = [measured(world, remembering(world, some)) for some in taught]
        if arguments.memory_only:
            continue
        rows[f"fine-tuning, {count}"] = [measured(world, tuned(world, some)) for some in taught]
    head = f"{'campaign found':>16}{'AUROC':>8}{'harmless blamed':>17}{'old AUROC':>11}{'old accuracy':>14}"
    print(f"{'':<16}{head}")
    for name, found in rows.items():
        cells = [mean(column) for column in zip(*found, strict=True)]
        print(
            f"{name:<16}{cells[0]:>16.3f}{cells[1]:>8.3f}{cells[2]:>17.3f}{cells[3]:>11.3f}{cells[4]:>14.3f}"
        )


def opened(run: Path, root: Path, parts: tuple[str, ...]) -> World:
    predictor = load(run, device="cpu")
    splits = {name: HatefulMemes(root, name) for name in ("dev_seen", "test_seen")}
    answers = root / "test_seen.answers.jsonl"
    test = HatefulMemes(root, "test_seen", answers=answers)
    # The pictures of both splits lie in one store.
    store = regions_of_run(predictor, run, splits["dev_seen"])
    benign = [example for example in test if example.target == "benign"]
    return World(
        dev=list(splits["dev_seen"]),
        test=list(test),
        campaign=[*written(benign, ADVERTISEMENTS, "hateful", "ad")],
        harmless=[*written(benign, INVITATIONS, "benign", "invitation")],
        store=store,
        predictor=predictor,
        parts=parts or usual_parts(predictor),
    )


def written(
    pictures: Sequence[Example], grammar: Sequence[Sequence[str]], label: str, name: str
) -> Iterator[Example]:
    """Memes with these pictures and texts of a grammar, every one different."""
    random = np.random.default_rng(len(name))
    whole = [[a, b, c, d] for a in grammar[0] for b in grammar[1] for c in grammar[2] for d in grammar[3]]
    for number, row in enumerate(random.permutation(len(whole))[: len(pictures)]):
        pair = replace(pictures[number].pairs[0], text=" ".join(whole[row]))
        yield replace(pictures[number], id=f"{name}{number}", pairs=(pair,), target=label)


Scoring = Callable[[Sequence[Example]], "np.ndarray"]


def measured(world: World, scores: Scoring) -> tuple[float, ...]:
    """Recall and AUROC of the campaign's unseen half, blamed harmless ones, AUROC and accuracy of before."""
    new, other, old = scores(world.campaign[1::2]), scores(world.harmless), scores(world.test)
    truth = np.array([example.target == "hateful" for example in world.test])
    benign = old[~truth, 1]
    campaign = np.concatenate([np.ones(len(new)), np.zeros(len(benign))]) > 0
    return (
        float((new[:, 1] >= 0.5).mean()),
        float(auroc(campaign, np.concatenate([new[:, 1], benign]))),
        float((other[:, 1] >= 0.5).mean()),
        float(auroc(truth, old[:, 1])),
        float(((old[:, 1] >= 0.5) == truth).mean()),
    )


def remembering(world: World, taught: Sequence[Example]) -> Scoring:
    """Scores with a memory of the taught examples, fitted on the labels of before."""
    cases, dev = world.asked(taught), world.asked(world.dev)
    memory = Memory(
        model="",
        parts=world.parts,
        classes=("benign", "hateful"),
        cases=tuple(
            Case(id=name, label="hateful", scores=tuple(map(float, row)))
            for name, row in zip(cases.ids, cases.scores, strict=True)
        ),
        vectors=cases.vectors,
        center=np.zeros(cases.vectors.shape[1], np.float32),
    )
    truth = np.array([int(example.target == "hateful") for example in world.dev])
    memory, _ = fit_memory(
        memory, vectors=dev.vectors, scores=dev.scores, truth=truth, split="dev_seen", checksum=""
    )

    def scores(examples: Sequence[Example]) -> "np.ndarray":
        asked = world.asked(examples)
        return np.array([[*one.scores.values()] for one in recall_all(memory, asked.vectors, asked.scores)])

    return scores


def tuned(world: World, taught: Sequence[Example]) -> Scoring:
    """Scores of the model after steps on the taught examples, with the rate of its training."""
    predictor = Predictor(copy.deepcopy(world.predictor.bundle), device="cpu")
    sources = predictor.sources(Listed(taught), features=world.store)
    batch = Collate(predictor.processor, targets=predictor.task.targets, sources=sources)(list(taught))
    modules = [predictor.model, predictor.task]
    optimizer = torch.optim.AdamW([p for one in modules for p in one.parameters()], lr=RATE)
    torch.manual_seed(0)
    for _ in range(STEPS):
        for one in modules:
            one.train()
        loss = predictor.task(predictor.model, batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one in modules:
        one.eval()
    return lambda examples: world.scores(predictor, examples)


if __name__ == "__main__":
    main()
