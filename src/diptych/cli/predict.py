"""Score splits of a data set, or one meme.

For each split it writes the official file of the data set (for Hateful Memes OUT/SPLIT.csv with id, proba,
label) and OUT/SPLIT.npz (all classes, provenance). Predictions of the same model on the same files are kept.
Several runs make one official file together where a data set has a rule for it (VCR: q2a and qa2r).
With --policy, a file of `diptych calibrate`, it also writes OUT/decisions/SPLIT.csv: allow, review or block.
With --ocr, the words of memes without text are read from their pictures, and kept in OUT/SPLIT.ocr.jsonl.

try:
  diptych predict runs/uniter_tiny/seed1 --splits dev_seen,test_seen
  diptych predict runs/concat_bert/seed1 --image meme.png --text "what a day"
  diptych predict runs/q2a runs/qa2r --splits val,test
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.engine import chosen_engine, configure_engine
from diptych.cli.options import (
    add_batch_size,
    add_data,
    add_device,
    add_ocr,
    add_out,
    add_overwrite,
    add_policy,
    add_root,
)
from diptych.cli.output import progress, table
from diptych.cli.policy import decided
from diptych.cli.words import EmptyTexts, spaced, text_of
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.calibrate import Policy
    from diptych.predict import Predictor, SplitFiles
    from diptych.predictions import Predictions
    from diptych.scale.ray import RayEngine


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", metavar="run", type=Path, nargs="+", help="run folders or bundles; several make one file"
    )
    parser.add_argument(
        "--splits", help="comma-separated (default: dev_seen,test_seen, or all but the training split)"
    )
    add_data(parser)
    add_root(parser, "(default: the one trained on)")
    parser.add_argument("--features", type=Path, help="feature store or boxes.jsonl (default: as trained)")
    parser.add_argument("--more-features", type=Path, help="the second store of a model that merges two")
    add_out(parser, "folder for the files (default: RUN/predictions; of several runs, its joined)")
    add_overwrite(parser, "score again, and replace prediction files")
    parser.add_argument("--limit", metavar="N", help="the first images alone: tiny, fast or a number")
    parser.add_argument("--image", type=Path, help="score this picture instead of splits")
    parser.add_argument("--text", help="the text of the picture")
    add_ocr(parser, "read the words of memes without text from their pictures")
    add_policy(parser)
    add_device(parser, int8=True)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model's layers with the first batch; needs a C++ compiler",
    )
    add_batch_size(parser)
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")
    configure_engine(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.predict import load

    # Either is enough: a model of one side needs the other one not at all.
    single = arguments.text is not None or arguments.image is not None
    # Several runs make one official file, so what belongs to a single decision has no meaning there.
    if len(arguments.runs) > 1:
        if single or arguments.ocr or arguments.data is not None or arguments.policy is not None:
            raise ConfigError(
                f"{len(arguments.runs)} runs; --image, --text, --ocr, --data and --policy are for one run."
            )
        return _together(arguments)
    # Before a model of gigabytes is loaded.
    policy = None if arguments.policy is None else _policy(arguments)
    if single:
        if arguments.compile:
            raise ConfigError("--compile takes longer than one meme does; remove it.")
        predictor = load(arguments.runs[0], device=arguments.device, precision=arguments.precision)
        return _one(predictor, arguments, policy)
    job = _Job(arguments, arguments.runs[0])
    results = job.predict(arguments.out)
    if policy is not None:
        _decide(policy, results, overwrite=arguments.overwrite)
    # With the root, because an official file does not say where its data lie.
    print(f"next: diptych evaluate {results[0].file} --root {job.root} --split {results[0].split}")
    return 0


def _together(arguments: argparse.Namespace) -> int:
    from diptych.evaluate import evaluate
    from diptych.predict import join_splits, joined_data

    jobs = [_Job(arguments, run) for run in arguments.runs]
    data = joined_data([job.data for job in jobs])  # before the first prediction: it refuses many runs
    results = [job.predict(None) for job in jobs]
    out = arguments.out or arguments.runs[0] / "predictions" / "joined"
    files = join_splits(results, data, root=jobs[0].root, out=out, overwrite=arguments.overwrite)
    table("together", ["split", "file"], [(one.dataset.split, one.file) for one in files])
    for one in files:
        if any(target is not None for target, _, _ in one.dataset.table.targets()):
            found = evaluate(one.predictions, one.dataset)
            for title, (columns, rows) in found.tables().items():
                name = one.dataset.split if title == found.name else f"{one.dataset.split}, {title}"
                table(name, columns, rows, numbers=len(columns) - 1)
    return 0


class _Job:
    """A run that is to predict, with its model and data set."""

    def __init__(self, arguments: argparse.Namespace, run: Path) -> None:
        from diptych.predict import compile_layers, load, root_of_run

        self.arguments, self.run = arguments, run
        self.predictor = load(run, device=arguments.device, precision=arguments.precision)
        if arguments.compile:
            if arguments.engine != "local":
                raise ConfigError("--compile is for this process; remove it, or --engine.")
            # torch 2.13's compiler fails on the products of 8-bit integers.
            if arguments.precision == "int8":
                raise ConfigError("--compile and --precision int8 exclude each other; remove one of them.")
            compile_layers(
                self.predictor.model, lambda took: print(f"compiled with the first batch: {took:.0f} s")
            )
        self.root = root_of_run(run, arguments.root)  # bundles contain no paths; the run folder has them
        about = self.predictor.bundle.provenance
        self.data = chosen_data(arguments, self.root, about.get("data"), f"the bundle in {run}")

    def predict(self, out: Path | None) -> "list[SplitFiles]":
        """Predict the splits, and print a table of the files."""
        from diptych.predict import predict_splits

        arguments, data = self.arguments, self.data
        with ExitStack() as stack:
            engine = stack.enter_context(chosen_engine(arguments, device=self.predictor.device.type))
            # Only scoring runs on the engine; files are written by this process.
            score = None if engine is None else _on_engine(self.predictor, self.run, engine)
            words = self._words(stack, out, engine)
            results = predict_splits(
                self.run,
                arguments.splits.split(",") if arguments.splits else None,
                root=self.root,
                data=data,
                features=arguments.features,
                more_features=arguments.more_features,
                out=out,
                limit=arguments.limit,
                overwrite=arguments.overwrite,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                predictor=self.predictor,
                score=words or score,
                settings=None if words is None else words.settings(),
                progress=lambda split: progress(f"scoring {split}"),
            )
        positive = data.kind.positive
        rows = [
            (files.split, files.file, len(files.predictions), _counts(files, positive)) for files in results
        ]
        table("", ["split", "file", f"{data.kind.noun}s", positive or "answers"], rows, numbers=2)
        if words is not None and words.notes:
            print("\n".join(words.notes))
        if kept := [files.split for files in results if files.kept]:
            print(f"kept, already predicted by this model from these files: {', '.join(kept)}")
        return results

    def _words(self, stack: ExitStack, out: Path | None, engine: object) -> EmptyTexts | None:
        """Return what reads the words of memes without text, with --ocr."""
        if not self.arguments.ocr:
            return None
        if engine is not None:
            raise ConfigError(
                "--ocr reads words in this process; write them with `diptych ocr` for --engine ray."
            )
        from diptych.detect.rapid import RapidReader

        engine = stack.enter_context(RapidReader())
        reader = spaced(engine, self.arguments, self.predictor.processor.text)
        return EmptyTexts(self.predictor, reader, out or self.run / "predictions", lines=self.arguments.lines)


def _on_engine(predictor: "Predictor", run: Path, engine: "RayEngine") -> Callable[..., "Predictions"]:
    from diptych.scale import predict_split

    return partial(predict_split, predictor, run, engine=engine)


def _counts(files: "SplitFiles", positive: str | None) -> object:
    """Count the answers of the positive class; without one, of the first five classes."""
    # A look at them tells at once if a model answers always the same.
    counts = Counter(files.predictions.answers or ())
    shown = "  ".join(f"{name} {count:,}" for name, count in sorted(counts.most_common(5)))
    return counts[positive] if positive else shown


def _policy(arguments: argparse.Namespace) -> "Policy":
    from diptych.calibrate import Policy
    from diptych.predict import bundle_checksum

    policy = Policy.load(arguments.policy)
    # By the weights: a run that was trained again has the same name.
    policy.require_model(bundle_checksum(arguments.runs[0]))
    return policy


def _decide(policy: "Policy", results: "Sequence[SplitFiles]", *, overwrite: bool) -> None:
    from diptych.calibrate import ACTIONS, write_decisions

    rows = []
    for files in results:
        decisions = policy.decide(files.predictions)
        # In a folder of their own: `diptych ensemble` takes all CSV files beside the official one as members.
        path = files.file.parent / "decisions" / f"{files.split}.csv"
        write_decisions(path, files.predictions.ids, decisions, overwrite=overwrite)
        rows.append((files.split, path, *(decisions.action.count(action) for action in ACTIONS)))
    table("", ("split", "decisions", *ACTIONS), rows, numbers=len(ACTIONS))


def _one(predictor: "Predictor", arguments: argparse.Namespace, policy: "Policy | None") -> int:
    from diptych.data import refuse_unread
    from diptych.predict import regions_of_run

    regions = None
    refuse_unread(predictor.processor, features=arguments.features, more_features=arguments.more_features)
    # the model needs --image for the key of its regions, even if it reads no pixels
    if predictor.processor.regions:
        if arguments.image is None:
            raise ConfigError("the model reads regions; add --image, whose file name is the regions' key.")
        source = regions_of_run(
            predictor,
            arguments.runs[0],
            # The stem is the key of a picture in every store.
            {arguments.image.stem: arguments.image},
            arguments.features,
            arguments.more_features,
        )
        regions = None if source is None else source[arguments.image.stem]
    # A model of regions gets the picture's regions alone.
    image = arguments.image if "pixels" in predictor.needs else None
    text = arguments.text or ""
    if arguments.ocr:
        if arguments.text is not None or arguments.image is None:
            raise ConfigError("--ocr reads the words of --image; with --text there is nothing to read.")
        text = text_of(arguments, [arguments.image], lambda: predictor.processor.text).text
    verdict = predictor.predict(text=text, image=image, regions=regions)
    scores = "  ".join(f"{name} {score:.4f}" for name, score in verdict.scores.items())
    print(f"{verdict.answer}   ({scores})")
    if policy is not None:
        print(decided(policy, verdict.scores)["line"])
    return 0
