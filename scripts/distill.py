"""Distill an ensemble into one small model, and measure what that is worth.

Every teacher is trained once per fold of the training memes, without the fold, and predicts the fold. The
mean of the teachers is then a judgment of every training meme by models that have not seen it:
OUT/soft.npz, for `task.soft_targets`. The student is trained with the labels, and with these targets. The
teachers, trained on all memes, are measured beside it on the same test split. With --labels 0.1 the student
knows the labels of a tenth of the training memes: without soft targets it learns from these memes alone, with
them from all. Usage:

    diptych world memes --size 2000 --seed 0
    python scripts/distill.py memes runs/distill
"""

import argparse
import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from diptych.data.subset import Subset
from diptych.datasets import HatefulMemes
from diptych.ensemble import blend
from diptych.evaluate import Estimate, compare, evaluate
from diptych.predict import load, regions_of_run
from diptych.predictions import Predictions
from diptych.recipe import compose, run_recipe
from diptych.types import Dataset

TEACHERS = ("uniter_tiny", "visualbert_tiny", "concat_bert_tiny")
STUDENT = "clip_linear_tiny"
ROUNDS = 9  # of each measurement of time; the fastest counts


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all trainings share."""

    root: Path
    out: Path
    settings: tuple[str, ...]

    def config(self, name: str, *words: str) -> dict[str, Any]:
        return compose([f"experiment=hateful_memes/{name}", *self.settings, *words])

    def train(self, name: str, folder: Path, *words: str, root: Path | None = None) -> Path:
        """Train an experiment, or find it trained."""
        given = [f"root={root or self.root}", f"out={folder}"]
        quiet = ["loggers=[]", "progress=false"]
        config = self.config(name, *given, *quiet, *words)
        if config["processor"].get("regions"):  # a model of pixels refuses a store
            config["features"] = str(self.root / "features")
        return run_recipe(config).folder


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", type=Path, help="folder of the memes, with features")
    add("out", type=Path, help="folder of all runs; what is there is not trained again")
    add("--teachers", nargs="+", default=TEACHERS, help="experiments of hateful_memes")
    add("--student", default=STUDENT, help="experiment of the student")
    add("--folds", type=int, default=4)
    add("--seeds", type=int, default=3, help="seeds of the student")
    add("--labels", type=float, default=1.0, help="share of the training memes whose label the student knows")
    add("--share", type=float, default=0.7, help="share of the soft targets (task.soft_share)")
    add("--test", default="test_unseen", help="split that all are measured on")
    add("--set", nargs="*", default=[], help="settings of all trainings, such as trainer.max_epochs=2")
    add("--student-set", nargs="*", default=[], help="settings of the student alone")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    setup = Setup(root=arguments.root, out=arguments.out, settings=tuple(arguments.set))
    train = HatefulMemes(setup.root, "train")
    soft = soft_targets(setup, train, arguments.teachers, arguments.folds)
    truth = {example.id: example.target for example in train}
    print(f"out of fold, {len(train)} training memes: {cells(evaluate(soft, truth).metrics['auroc'])}")
    ways: dict[str, list[Path]] = {}
    ways |= {name: [setup.train(name, setup.out / name)] for name in arguments.teachers}
    soft_words = [f"task.soft_targets={setup.out / 'soft.npz'}", f"task.soft_share={arguments.share}"]
    known, every = student_roots(setup, len(train), arguments.labels)
    suffix = "" if known == every else f"{arguments.labels:g}_"
    # As many steps with fewer memes, or the student without soft targets would only be trained less.
    epochs = setup.config(arguments.student, f"root={setup.root}", *arguments.student_set)["trainer"][
        "max_epochs"
    ]
    longer = [f"trainer.max_epochs={round(epochs / arguments.labels)}"] if suffix else []
    for kind, root, more in (("labels", known, longer), ("soft targets", every, soft_words)):
        for seed in range(1, arguments.seeds + 1):
            folder = setup.out / f"student_{kind.split()[0]}{suffix}{seed}"
            given = (*arguments.student_set, *more, f"seed={seed}")
            ways[f"{arguments.student}, {kind}, seed {seed}"] = [
                setup.train(arguments.student, folder, *given, root=root)
            ]
    report(setup, ways, arguments.teachers, arguments.test)


def folds_of(train: HatefulMemes, count: int) -> np.ndarray:
    """The fold of every meme; memes with the same text are in one, as are the shares of the classes."""
    texts = [example.pairs[0].text for example in train]
    labels = [example.target for example in train]
    # A confounder of a meme that is asked for, with the opposite label, would mislead the teacher.
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    found = np.zeros(len(texts), int)
    for number, (_, held) in enumerate(splitter.split(texts, labels, texts)):
        found[held] = number
    return found


def soft_targets(setup: Setup, train: HatefulMemes, teachers: Sequence[str], count: int) -> Predictions:
    """The mean of the teachers' probabilities of every training meme, out of fold."""
    folds = folds_of(train, count)
    parts: dict[str, list[Predictions]] = {name: [] for name in teachers}
    for fold in range(count):
        held = np.flatnonzero(folds == fold)
        kept = [*map(int, np.flatnonzero(folds != fold))]
        view = viewed(setup, setup.out / f"fold{fold}", kept)
        for name in teachers:
            run = setup.train(name, setup.out / f"{name}_fold{fold}", root=view)
            parts[name].append(predicted(run, Subset(train, held), train)[0])
    members = [Predictions.concat(some).align(train.ids) for some in parts.values()]
    soft = blend(members, method="mean")
    soft.save(setup.out / "soft.npz")
    return soft


def student_roots(setup: Setup, count: int, share: float) -> tuple[Path, Path]:
    """Folders of the memes whose labels the student knows, and of all memes with these labels alone."""
    if share >= 1:
        return setup.root, setup.root
    order = np.random.default_rng(0).permutation(count)
    known, rest = (sorted(map(int, some)) for some in np.split(order, [max(2, round(share * count))]))
    places = [setup.out / f"labels{share:g}", setup.out / f"all{share:g}"]
    for folder, kept, unlabeled in zip(places, (known, range(count)), ((), rest), strict=True):
        viewed(setup, folder, kept, unlabeled)
        # Both students read the same words: texts cost no labels.
        if (setup.root / "vocabulary.txt").exists():
            shutil.copy(setup.root / "vocabulary.txt", folder)
    return places[0], places[1]


def viewed(setup: Setup, folder: Path, kept: Collection[int], unlabeled: Collection[int] = ()) -> Path:
    """A folder with some rows of the training memes, of which some have lost their labels."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "img").symlink_to((setup.root / "img").absolute())
    shutil.copy(setup.root / "dev_seen.jsonl", folder)
    lines = [*filter(None, (setup.root / "train.jsonl").read_text(encoding="utf-8").split("\n"))]
    hidden, out = set(unlabeled), list[str]()
    for row in kept:
        record = json.loads(lines[row])
        if row in hidden:
            del record["label"]
        out.append(json.dumps(record))
    (folder / "train.jsonl").write_text("\n".join(out), encoding="utf-8")
    return folder


def predicted(run: Path, dataset: Dataset, whole: HatefulMemes) -> tuple[Predictions, float]:
    """Predictions, and the milliseconds of processor time per meme with reading of pictures and features."""
    predictor = load(run, device="cpu")
    store = regions_of_run(predictor, run, whole)
    seconds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        found = predictor.predict_dataset(dataset, features=store, images=whole.images)
        seconds.append(time.process_time() - begin)
    return found, 1000 * min(seconds) / len(dataset)


def report(setup: Setup, ways: Mapping[str, Sequence[Path]], teachers: Sequence[str], split: str) -> None:
    answers = setup.root / f"{split}.answers.jsonl"
    test = HatefulMemes(setup.root, split, answers=answers if answers.exists() else None)
    found = {name: predicted(runs[0], test, test) for name, runs in ways.items()}
    members = [found[name] for name in teachers]
    whole = (blend([one for one, _ in members], method="mean"), sum(cost for _, cost in members))
    print(f"\n{split}, {len(test)} memes\n| model | AUROC | ms per meme |\n|---|---|---|")
    for name, (scores, cost) in {**found, "mean of the teachers": whole}.items():
        print(f"| {name} | {cells(evaluate(scores, test).metrics['auroc'])} | {cost:.2f} |")
    for name, (scores, _) in found.items():
        if "soft targets" in name:
            plain = found[name.replace("soft targets", "labels")][0]
            gain = compare(scores, plain, test).metrics["auroc"]
            print(f"{name}: {gain.difference:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over labels")


def cells(measured: Estimate) -> str:
    return f"{measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}]"


if __name__ == "__main__":
    main()
