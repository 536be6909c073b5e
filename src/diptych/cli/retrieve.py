"""Rank all texts of a split for each image, and all images for each text.

The split holds true pairs: captions, or sentences and their translations. Results are the recall at 1, 5 and
10 in both directions with confidence intervals, rankings, all scores, and pictures of the best candidates.
The same command continues after a stop.

try:
  diptych retrieve runs/multi30k/retrieval_tiny/seed1 --split test_2016_flickr
  diptych retrieve runs/multi30k/translation_retrieval_tiny/seed1 --split val --by cosine
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_device, add_json, add_out, add_overwrite, add_root
from diptych.cli.output import as_json, progress, table
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.predict import Retrieval


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run folder or a bundle")
    parser.add_argument("--split", required=True, help="a split of true pairs")
    parser.add_argument(
        "--by",
        choices=("match", "cosine"),
        default="match",
        help="match: score every pair with the task (default); cosine: compare encodings of both sides",
    )
    add_data(parser)
    add_root(parser, "(default: the one trained on)")
    parser.add_argument("--features", type=Path, help="feature store (default: as trained)")
    parser.add_argument(
        "--towers",
        type=Path,
        help="of layers on stored vectors: the model that made them, in place of a store",
    )
    add_out(parser, "folder for the results (default: RUN/retrieval/SPLIT)")
    add_overwrite(parser, "score again, and replace the results")
    parser.add_argument(
        "--folds",
        type=int,
        default=1,
        help="rank within so many parts of the images (COCO 1k: 5; default: 1)",
    )
    parser.add_argument("--top", type=int, default=10, help="candidates in a ranking (default: 10)")
    parser.add_argument(
        "--ties",
        choices=("last", "order"),
        default="last",
        help="of equal scores, the right candidate comes last (default), or as numbered (MM-BERT)",
    )
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument(
        "--queries", type=int, default=6, help="queries in the pictures (default: 6; 0: none)"
    )
    add_device(parser)
    parser.add_argument("--batch-size", type=int, default=256, help="pairs per batch (default: 256)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.predict import Measuring, load, retrieve, root_of_run

    draw = _draw(arguments.queries)  # fails before hours of scoring if matplotlib is missing
    predictor = load(
        arguments.run,
        device=arguments.device,
        precision=arguments.precision,
        # Cosines compare states, for which a model needs no trained task.
        pretrained=arguments.by == "cosine",
    )
    # A bundle holds no paths; the run's folder has them.
    root = root_of_run(arguments.run, arguments.root)
    node = predictor.bundle.provenance.get("data")
    # The bundle knows the data set and its settings; --data is for files elsewhere.
    data = chosen_data(arguments, root, node, f"the bundle in {arguments.run}")
    with progress(f"scoring pairs of {arguments.split}") as advance:
        found = retrieve(
            arguments.run,
            arguments.split,
            by=arguments.by,
            root=root,
            data=data,
            features=arguments.features,
            towers=arguments.towers,
            out=arguments.out,
            folds=arguments.folds,
            measuring=Measuring(top=arguments.top, ties=arguments.ties, samples=arguments.samples),
            overwrite=arguments.overwrite,
            batch_size=arguments.batch_size,
            predictor=predictor,
            draw=draw,
            progress=advance,
        )
    if arguments.json:
        measures = {
            direction: {name: one._asdict() for name, one in values.items()}
            for direction, values in found.measures.items()
        }
        # Rankings and scores are in the folder; here are the numbers to report.
        as_json({"folder": found.folder, "kept": found.kept, "measures": measures})
        return 0
    _show(found)
    return 0


def _draw(queries: int) -> Any:
    if queries < 0:
        raise ConfigError(f"--queries is {queries}; expected 0 or more.")
    # Without pictures, matplotlib is not loaded.
    if not queries:
        return None
    from functools import partial

    from diptych.report import retrieval_page

    return partial(retrieval_page, queries=queries)


def _show(found: "Retrieval") -> None:
    rows = []
    for direction, values in found.measures.items():
        query, _, candidate = direction.partition("_to_")
        cells = [
            # Recalls are shares, ranks are numbers of candidates.
            f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"
            if name.startswith("recall")
            else f"{one.value:,.1f} [{one.low:,.1f}, {one.high:,.1f}]"
            for name, one in values.items()
        ]
        rows.append([f"{query} to {candidate}", *cells])
    columns = [name.replace("_", " ") for name in next(iter(found.measures.values()))]
    left, right = found.sides.names
    count, other = found.sides.shape
    title = f"{count:,} {left}s by {other:,} {right}s"
    table(title, ["direction", *columns], rows, numbers=len(columns))
    print(f"{'kept' if found.kept else 'wrote'} {found.folder}")
