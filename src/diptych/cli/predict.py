"""Score splits of a data set, or one meme.

Each split gives the official file of its data set (of Hateful Memes OUT/SPLIT.csv with id, proba, label) and
OUT/SPLIT.npz (all classes, provenance).

try:
  diptych predict runs/uniter_tiny/seed1 --splits dev_seen,test_seen
  diptych predict runs/concat_bert/seed1 --image meme.png --text "what a day"
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import add_data, chosen_data
from diptych.cli.engine import chosen_engine, configure_engine
from diptych.cli.screen import progress, table
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.datasets import Data
    from diptych.predict import Predictor
    from diptych.scale.ray import RayEngine
    from diptych.types import RegionSource


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run folder or a bundle")
    parser.add_argument("--splits", help="default: dev_seen,test_seen, or all but that of training")
    add_data(parser)
    parser.add_argument("--root", type=Path, help="folder of the data set (default: the one trained on)")
    parser.add_argument("--features", type=Path, help="feature store or boxes.jsonl (default: as trained)")
    parser.add_argument("--more-features", type=Path, help="the second store of a model that merges two")
    parser.add_argument("--out", type=Path, help="folder for the files (default: RUN/predictions)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--image", type=Path, help="score this picture instead of splits")
    parser.add_argument("--text", help="the text of the picture")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="default: 32")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")
    configure_engine(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.bundle import trained_on
    from diptych.files import reserved
    from diptych.predict import load

    if arguments.batch_size < 1 or arguments.workers < 0:
        raise ConfigError(
            f"--batch-size is {arguments.batch_size} and --workers {arguments.workers}; expected at least "
            "one example and no fewer than zero workers."
        )

    predictor = load(arguments.run, device=arguments.device, precision=arguments.precision)
    if arguments.text is not None or arguments.image is not None:
        return _one(predictor, arguments)
    known = trained_on(arguments.run)["root"]
    root = arguments.root or (Path(known) if known else None)
    if root is None:
        raise ConfigError("the bundle does not know its data set; say --root FOLDER.")
    out = arguments.out or arguments.run / "predictions"
    about = predictor.bundle.provenance
    data = chosen_data(arguments, root, about.get("data"), f"the bundle in {arguments.run}")
    splits = arguments.splits.split(",") if arguments.splits else _default_splits(data, root, about)
    for split in splits:  # a wrong name shows before the first split is scored
        data.find_files(root, split)
    suffixes = (data.kind.suffix, ".npz")
    with ExitStack() as stack:
        for file in dict.fromkeys(out / f"{split}{suffix}" for split in splits for suffix in suffixes):
            stack.enter_context(reserved(file, overwrite=arguments.overwrite, kind="a prediction file"))
        engine = stack.enter_context(chosen_engine(arguments, device=predictor.device.type))
        rows = [_split(predictor, arguments, data, root, split, out, engine) for split in splits]
    positive = data.kind.positive
    table("", ["split", "file", f"{data.kind.noun}s", positive or "answers"], rows, numbers=2)
    first = out / f"{splits[0]}{data.kind.suffix}"
    print(f"next: diptych evaluate {first} --root {root} --split {splits[0]}")
    return 0


def _split(
    predictor: "Predictor",
    arguments: argparse.Namespace,
    data: "Data",
    root: Path,
    split: str,
    out: Path,
    engine: "RayEngine | None",
) -> tuple[object, ...]:
    from dataclasses import replace
    from functools import partial

    about = predictor.bundle.provenance
    dataset = data.open(root.absolute(), split)
    score = predictor.predict_dataset
    if engine is not None:
        from diptych.scale import predict_split

        score = partial(predict_split, predictor, arguments.run, engine=engine)
    store = _regions(predictor, arguments, dataset.images)
    with progress(f"scoring {split}") as advance:
        predictions = score(
            dataset,
            features=store,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            progress=advance,
        )
    meta = {
        "bundle": str(arguments.run),
        "split": split,
        "name": about.get("name"),
        "seed": about.get("seed"),
        "data": dataset.node,
    }
    if store is not None:
        meta["features"] = store.meta.checksum
    file = out / f"{split}{dataset.suffix}"
    dataset.write(predictions, file)
    replace(predictions, meta=meta).save(out / f"{split}.npz")
    counts = Counter(predictions.answers or ())
    shown: object = "  ".join(f"{name} {count:,}" for name, count in sorted(counts.items())[:5])
    return split, file, len(predictions), counts[positive] if (positive := data.kind.positive) else shown


def _default_splits(data: "Data", root: Path, about: Mapping[str, Any]) -> list[str]:
    """Those that the data set says, else all but that of training."""
    found, trained = data.splits(root), (about.get("training") or {}).get("split")
    return [*data.kind.predicted] or [split for split in found if split != trained] or [*found]


def _regions(
    predictor: "Predictor", arguments: argparse.Namespace, images: Mapping[str, str | Path]
) -> "RegionSource | None":
    from diptych.bundle import trained_on
    from diptych.data import open_regions

    places, merge = trained_on(arguments.run), predictor.bundle.provenance.get("region_merge")
    if arguments.more_features is not None and merge in (None, "detector_only"):
        raise ConfigError("the model was trained on one feature store; leave --more-features out.")
    more = arguments.more_features or places["more_features"]
    if more is None and merge not in (None, "detector_only"):
        raise ConfigError("the model was trained on two feature stores; say --more-features FOLDER.")
    return open_regions(
        predictor.processor,
        arguments.features or places["features"],
        images,
        more=more,
        merge=merge or "vilio",
    )


def _one(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    regions = None
    if predictor.processor.regions:
        if arguments.image is None:
            raise ConfigError("the model reads regions; say --image, whose name is the key of its regions.")
        source = _regions(predictor, arguments, {arguments.image.stem: arguments.image})
        regions = None if source is None else source[arguments.image.stem]
    image = arguments.image if "pixels" in predictor.needs else None
    verdict = predictor.predict(text=arguments.text or "", image=image, regions=regions)
    scores = "  ".join(f"{name} {score:.4f}" for name, score in verdict.scores.items())
    print(f"{verdict.answer}   ({scores})")
    return 0
