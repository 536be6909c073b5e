"""The part of `diptych audit` that attacks a model: `diptych audit RUN --robust --split SPLIT`."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data
from diptych.cli.options import add_batch_size, add_device, add_ocr
from diptych.cli.output import as_json, progress, table
from diptych.cli.words import spaced
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.audit.robust import Regions, Robustness
    from diptych.predict import Predictor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of --robust to those of the verb, which has --limit, --samples, --data and --json."""
    add = parser.add_argument
    add("--robust", action="store_true", help="attack a model: give its run or bundle in place of the folder")
    add("--split", help="with --robust: the labeled split to attack")
    add(
        "--root",
        dest="data_root",
        type=Path,
        help="with --robust: the data set (default: the one trained on)",
    )
    add(
        "--weights",
        action="append",
        default=[],
        help="with --robust: extract regions of attacked pictures, DETECTOR=FILE or DETECTOR=random",
    )
    add("--seed", type=int, default=0, help="of the attacks on words (default: 0)")
    add("--plot", type=Path, help="with --robust: draw the table as a PNG")
    add_ocr(parser, "with --robust: read the words of pictures, for the attacks that need them")
    add_batch_size(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Attack the model in `arguments.root`, and print a table."""
    from diptych.audit.robust import robust
    from diptych.files import require_new, reserved
    from diptych.predict import load, root_of_run

    if arguments.split is None:
        raise ConfigError("--robust needs --split, the labeled memes to attack, such as --split dev_seen.")
    if arguments.batch_size < 1 or arguments.seed < 0:
        raise ConfigError(
            f"--batch-size is {arguments.batch_size} (at least 1), --seed is {arguments.seed} (at least 0)."
        )
    picture = {"overwrite": arguments.overwrite, "kind": "a PNG picture"}
    if arguments.plot is not None:
        require_new(arguments.plot, **picture)  # before minutes of attacks; `reserved` looks again
    # The verb's first argument, which is a folder of data without --robust.
    model = arguments.root
    predictor = load(model, device=arguments.device, precision=arguments.precision)
    root = root_of_run(model, arguments.data_root)
    data = chosen_data(arguments, root, predictor.bundle.provenance.get("data"), f"the bundle in {model}")
    dataset = data.open_labeled(root.absolute(), arguments.split)
    if arguments.limit is not None:
        import numpy as np

        # Afterwards, because `open_labeled` takes no limit.
        dataset.keep(np.arange(min(arguments.limit, len(dataset))))
    with ExitStack() as stack:
        reader = None
        if arguments.ocr:
            from diptych.detect.rapid import RapidReader

            engine = stack.enter_context(RapidReader())
            reader = spaced(engine, arguments, predictor.processor.text)
        found = robust(
            predictor,
            dataset,
            regions=_regions(predictor, arguments),
            moving=bool(arguments.weights),
            reader=reader,
            chosen=arguments.lines,
            samples=arguments.samples,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            progress=stack.enter_context(progress("attacking")),
        )
    if arguments.plot is not None:
        from diptych.report.robust import attack_chart

        with reserved(arguments.plot, **picture):
            attack_chart(found, arguments.plot)
    if arguments.json:
        as_json(asdict(found))
        return 0
    _show(found, f"{arguments.split}: {found.count:,} {dataset.noun}s")
    if arguments.plot is not None:
        print(f"wrote {arguments.plot}")
    return 0


def _regions(predictor: "Predictor", arguments: argparse.Namespace) -> "Regions | None":
    """Return what makes the regions of pictures: stores, or detectors with --weights."""
    from diptych.data import refuse_unread
    from diptych.predict import regions_of_run

    refuse_unread(predictor.processor, features=arguments.features)
    if not predictor.processor.regions or predictor.processor.grid is not None:
        if arguments.weights:
            raise ConfigError("--weights are given, but the model reads no regions; remove them.")
        return None
    pairs = [word.rpartition("=") for word in arguments.weights]
    files = {name: None if file == "random" else Path(file) for name, _, file in pairs}

    @contextmanager
    def regions(images: Mapping[str, Path]) -> Iterator[Any]:
        # With detectors, both stores are made anew for every version of the pictures.
        stores: dict[str, Any] = {"features": arguments.features, "more_features": None}
        with ExitStack() as stack:
            if files:
                from diptych.study.score import found_in

                device = str(predictor.device)
                made = found_in([*images.values()], arguments.root, files, device=device)
                stores |= stack.enter_context(made)
            yield regions_of_run(predictor, arguments.root, images, *stores.values())

    return regions


def _show(found: "Robustness", title: str) -> None:
    rows = [
        (
            one.name,
            one.side,
            f"{one.auroc:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]",
            f"{one.change:+.3f} [{one.change_interval[0]:+.3f}, {one.change_interval[1]:+.3f}]",
            f"{100 * one.flips:.1f} % [{100 * one.flips_interval[0]:.1f}, {100 * one.flips_interval[1]:.1f}]",
            ", ".join(one.flipped),
        )
        for one in found.attacks
    ]
    columns = ("attack", "on", "AUROC with 95 % interval", "change", "answers that flip", "such as")
    table(title, columns, rows)
    reasons: dict[str, list[str]] = {}
    for name, reason in found.skipped.items():
        reasons.setdefault(reason, []).append(name)
    # Attacks that one reason excludes are told in one line.
    for reason, names in reasons.items():
        print(f"not tried: {', '.join(names)} ({reason})")
