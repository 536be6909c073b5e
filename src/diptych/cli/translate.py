"""Translate a split of a data set, and measure the translations.

Writes one sentence per line, in the order of the split, and prints BLEU and chrF with sacrebleu's signatures
if the right translations are known. The same command continues an interrupted call.

try:
  diptych translate runs/multi30k/translation_encoder_decoder/seed1 --split test_2016_flickr --beam 5
"""

import argparse
from dataclasses import replace
from pathlib import Path

from diptych.cli.data import chosen_data
from diptych.cli.options import add_batch_size, add_data, add_device, add_out, add_overwrite, add_root
from diptych.cli.output import progress, table
from diptych.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run folder or a bundle")
    parser.add_argument("--split", required=True, help="the split to translate")
    parser.add_argument("--beam", type=int, help="hypotheses per sentence (default: as trained)")
    parser.add_argument(
        "--length-penalty", type=float, help="0 = the most probable sentence (default: as trained)"
    )
    add_data(parser)
    add_root(parser, "(default: the one trained on)")
    parser.add_argument("--features", type=Path, help="feature store (default: as trained)")
    add_out(parser, "file for the sentences (default: RUN/translations/SPLIT.txt)")
    add_overwrite(parser, "translate again, and replace files of other settings")
    parser.add_argument("--limit", metavar="N", help="the first images alone: tiny, fast or a number")
    parser.add_argument(
        "--fold", action="store_true", help="compat: measure folded to ASCII as MM-BERT's evaluation does"
    )
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    add_device(parser)
    add_batch_size(parser)
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    from diptych.evaluate import evaluate
    from diptych.predict import load, root_of_run, translate_split
    from diptych.tasks import Translation

    if arguments.samples < 1:
        raise ConfigError(f"--samples is {arguments.samples}; expected at least 1.")
    predictor = load(arguments.run, device=arguments.device, precision=arguments.precision)
    root = root_of_run(arguments.run, arguments.root)
    node = predictor.bundle.provenance.get("data")
    data = chosen_data(arguments, root, node, f"the bundle in {arguments.run}")
    given = {"beam": arguments.beam, "length_penalty": arguments.length_penalty}
    # What is not given stays as the run was trained.
    given = {name: value for name, value in given.items() if value is not None}
    task, search = predictor.task, None
    if isinstance(task, Translation):  # translate_split() refuses others
        search = replace(task.search, **given)
    done = translate_split(
        arguments.run,
        arguments.split,
        search=search,
        root=root,
        data=data,
        features=arguments.features,
        file=arguments.out,
        limit=arguments.limit,
        overwrite=arguments.overwrite,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        predictor=predictor,
        progress=lambda split: progress(f"translating {split}"),
    )
    files = done.files
    table("", ["split", "file", "sentences"], [(files.split, files.file, len(files.predictions))], numbers=1)
    if files.kept:
        print("kept, already translated by this model with these settings")
    if done.resumed:
        print(f"{done.resumed:,} sentences were translated before the interruption")
    if done.cut:
        most = predictor.processor.max_tokens
        print(f"processor.max_tokens={most} cut {done.cut:,} of {len(files.predictions):,} sources")
    # Opened again, because a limit leaves out examples; `subset` below says that this is meant.
    targets = {example.id: example.target for example in data.open(root, arguments.split)}
    # The translations of a test set may be withheld; the sentences are written all the same.
    if any(targets.get(key) is not None for key in files.predictions.ids):
        result = evaluate(
            files.predictions, targets, fold=arguments.fold, samples=arguments.samples, subset=True
        )
        columns, rows = result.table()
        table("", columns, rows, numbers=len(columns) - 1)
        print(result.summary())
    return 0
