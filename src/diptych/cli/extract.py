"""Extract region features from pictures: one store per box rule, in one pass over the pictures.

Weights are the files of py-bottom-up-attention, of Hugging Face's frcnn-vg-finetuned, or safetensors;
`random` serves for trials. IMAGES is a folder, or a .txt file with one picture per line. A picture's key is
its file name without the extension. To continue an interrupted run, add --resume.

try:
  diptych extract memes/img features --weights faster_rcnn_from_caffe_attr.pkl --boxes 36,50,72,10:100
  diptych extract memes/img features --preset vilio --weights vgattr=ATTR.pkl --weights vg=PLAIN.pkl
  diptych extract memes/img features --detector grid --backbone resnet50 --weights resnet50.pth --grid 7x7
  diptych extract memes/img features --detector grid --given boxes.jsonl
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.engine import chosen_engine, configure_engine
from diptych.cli.import_ import names
from diptych.cli.options import add_device, add_ocr, add_overwrite
from diptych.cli.output import progress, table
from diptych.cli.words import spaced
from diptych.errors import ConfigError
from diptych.files import require_new

if TYPE_CHECKING:
    from diptych.detect import ExtractReport, ExtractSettings

WORDS = "ocr.jsonl"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", type=Path, help="a folder of pictures, or a .txt file with one per line")
    add("out", type=Path, help="folder of the stores")
    add("--preset", choices=("vilio",), help="make Vilio's six stores with the detectors vgattr and vg")
    add_detector(parser, default="vgattr")
    add(
        "--dtype",
        choices=("float16", "float32"),
        default="float32",
        help="type of features (default: float32)",
    )
    add_device(parser, "of the network")
    add("--batch", type=int, default=4, help="pictures whose boxes are computed together (default: 4)")
    add("--workers", type=int, default=2, help="threads that read pictures ahead (default: 2)")
    add("--shard", type=int, default=128, help="pictures per file; a kill loses at most one (default: 128)")
    add("--bad", choices=("stop", "skip"), default="stop", help="for an unreadable picture (default: stop)")
    add("--show", type=int, default=0, metavar="N", help="draw N pictures with their regions")
    add_ocr(parser, "also read the words of the pictures, into OUT/ocr.jsonl", words="none")
    add("--resume", action="store_true", help="continue an interrupted run")
    add_overwrite(parser, "replace stores that exist")
    configure_engine(parser)


def add_detector(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add the options that `detector_settings` reads: the detector, its weights and its boxes."""
    add = parser.add_argument
    names = "vg, vgattr, vgattr-original, coco, tiny, grid"
    add("--detector", default=default, help=f"{names} (default: {default or 'none, regions from a store'})")
    add("--weights", action="append", help="a file, `random`, or DETECTOR=FILE if there are two detectors")
    add("--boxes", default="36", help="box rules, comma-separated: a number or MIN:MAX (default: 36)")
    add("--select", default="max-class", help="max-class, per-class, caffe (default: max-class)")
    add("--given", type=Path, help="JSON lines with `id` and `boxes`, used instead of detected boxes")
    add("--padded", action="store_true", help="pad the pictures of a batch to one size, as Vilio's vg does")
    add(
        "--backbone", default="resnet50", help="for grid: resnet50, resnet101, resnet152, transformers:FOLDER"
    )
    add("--stage", type=int, default=4, help="for grid: stage of the ResNet, 1 to 4 (default: 4)")
    add("--grid", help="for grid: rows and columns, such as 7x7 (default: size of the feature map)")
    add("--size", type=int, default=448, help="for grid: pixels of the shorter side (default: 448)")
    add("--classes", type=Path, help="file with one object name per line")
    add("--attributes", type=Path, help="file with one attribute name per line")


def run(arguments: argparse.Namespace) -> int:
    from diptych.detect import extract
    from diptych.detect.rapid import RapidReader
    from diptych.predict import find_device

    for name in ("workers", "show"):
        if (number := getattr(arguments, name)) < 0:
            raise ConfigError(f"--{name} is {number}; expected at least 0.")
    # Found once, so that `auto` means the same device in every pass.
    device = str(find_device(arguments.device))
    every = detector_settings(
        arguments, preset=arguments.preset, dtype=arguments.dtype, batch=arguments.batch
    )
    # hours of extraction must not end with a refusal to write the picture
    if arguments.ocr:
        RapidReader()  # raises if it is not installed
        if not (arguments.overwrite or arguments.resume):
            require_new(arguments.out / WORDS)
    for settings in every if arguments.show else ():
        picture = arguments.out / f"{next(iter(settings.stores()))}.png"
        require_new(picture, overwrite=arguments.overwrite or arguments.resume, kind="a PNG picture")
    # One pass per detector; all box rules of a detector share its pass over the pictures.
    for settings in every:
        with chosen_engine(arguments, device=device) as engine, progress(settings.name) as advance:
            report = extract(
                arguments.images,
                arguments.out,
                settings,
                device=device if engine is None else device.partition(":")[0],  # Ray assigns the GPU's index
                bad=arguments.bad,
                shard=arguments.shard,
                workers=arguments.workers,
                resume=arguments.resume,
                overwrite=arguments.overwrite,
                engine=engine,
                progress=advance,
            )
        _print(settings, report, arguments.out)
        if arguments.show:
            _show(arguments.images, arguments.out, report, arguments.show)
    if arguments.ocr:
        _read(arguments)
    return 0


def _read(arguments: argparse.Namespace) -> None:
    from diptych.detect.listing import list_pictures
    from diptych.detect.rapid import RapidReader
    from diptych.detect.words import read_words

    with RapidReader() as engine, progress("reading words") as advance:
        reader = spaced(engine, arguments)
        report = read_words(
            list_pictures(arguments.images),
            arguments.out / WORDS,
            reader,
            chosen=arguments.lines,
            bad=arguments.bad,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            progress=advance,
        )
    print(
        f"wrote {report.path}: {len(report.texts):,} pictures, {report.empty:,} without words "
        f"({reader.identity()})"
    )


def _show(images: Path, out: Path, report: "ExtractReport", count: int) -> None:
    """Draw the regions of `count` evenly spaced pictures, as a PNG beside the first store."""
    from diptych.detect.listing import list_pictures
    from diptych.features import FeatureStore
    from diptych.report import region_page

    store = FeatureStore(report.stores[0].path)
    # Skipped pictures are not in the store.
    pictures = [picture for picture in list_pictures(images) if picture.key in store]
    pictures = pictures[:: max(1, len(pictures) // count)][:count]
    path = out / f"{store.path.name}.png"
    items = [(picture.path, store[picture.key]) for picture in pictures]
    region_page(items, path, meta=store.meta, title=f"{store.meta.detector}, {store.meta.box_rule} boxes")
    print(f"wrote {path}: {len(items)} pictures")


def detector_settings(
    arguments: argparse.Namespace, preset: str | None = None, **more: Any
) -> "list[ExtractSettings]":
    """Return the settings of every pass over the pictures; `more` are further settings of all of them."""
    from diptych.detect import passes

    return passes(
        arguments.detector,
        arguments.boxes.split(","),
        preset=preset,
        weights=_weights(arguments, preset),
        mode=arguments.select,
        given=arguments.given,
        padded=arguments.padded,
        backbone=arguments.backbone,
        stage=arguments.stage,
        size=arguments.size,
        cells=_cells(arguments.grid),
        classes=names(arguments.classes),
        attributes=names(arguments.attributes),
        precision=arguments.precision,
        **more,
    )


def _weights(arguments: argparse.Namespace, preset: str | None) -> dict[str, str]:
    """Return weight files by detector; the key "" holds the file without a detector's name."""
    from diptych.detect.passes import detectors_of

    detectors = detectors_of(arguments.detector, preset)
    files: dict[str, str] = {}
    for word in arguments.weights or []:
        name, equals, path = word.partition("=")
        # a path may contain `=` too, so only a detector's name counts
        files |= {name: path} if equals and name in detectors else {"": word}
    return files


def _cells(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not (match := re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)):
        raise ConfigError(f"--grid is {text!r}; expected rows and columns from 1 to 99, such as 7x7.")
    return int(match[1]), int(match[2])


def _print(settings: "ExtractSettings", report: "ExtractReport", out: Path) -> None:
    rows = [(out / store.path.name, store.images, store.regions, store.fewer) for store in report.stores]
    table("", ("store", "images", "regions", "images with fewer"), rows, numbers=3)
    # A resumed run may have found everything done.
    speed = f", {report.computed / report.seconds:.3g}/s" if report.computed else ""
    print(f"{report.computed:,} pictures processed in {report.seconds:.1f} s{speed}")
    bad = report.stores[0].bad
    if bad:
        print(f"{len(bad):,} picture(s) skipped; {rows[0][0]}.json lists all:")
        print("\n".join(f"  {fault}" for fault in bad[:5]) + "\n  ..." * (len(bad) > 5))
    if settings.name.endswith("-random"):
        print(f"{settings.name}: the weights are random, so boxes and classes are meaningless.")
