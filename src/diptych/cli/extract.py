"""Make region features from pictures: a store per box rule, from one pass over every picture.

Weights: the files of py-bottom-up-attention, of Hugging Face's frcnn-vg-finetuned, or safetensors; `random`
to try things out. IMAGES is a folder, or a .txt file with one picture per line. A picture's key is its name
without the ending. A run that was stopped goes on with resume=true.

try:
  diptych extract memes/img features --weights faster_rcnn_from_caffe_attr.pkl --boxes 36,50,72,10:100
  diptych extract memes/img features --preset vilio --weights vgattr=ATTR.pkl --weights vg=PLAIN.pkl
  diptych extract memes/img features --detector grid --backbone resnet50 --weights resnet50.pth --grid 7x7
  diptych extract memes/img features --detector grid --given boxes.jsonl
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.engine import chosen_engine, configure_engine
from diptych.cli.import_ import names
from diptych.cli.options import add_device, add_overwrite
from diptych.cli.output import progress, table
from diptych.errors import ConfigError
from diptych.files import require_new

if TYPE_CHECKING:
    from diptych.detect import ExtractReport, ExtractSettings


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", type=Path, help="a folder of pictures, or a .txt file with one per line")
    add("out", type=Path, help="folder of the stores")
    add(
        "--detector", default="vgattr", help="vg, vgattr, vgattr-original, coco, tiny, grid (default: vgattr)"
    )
    add("--preset", choices=("vilio",), help="Vilio's six stores, of the detectors vgattr and vg")
    add("--weights", action="append", help="a file, `random`, or DETECTOR=FILE where there are two")
    add("--boxes", default="36", help="rules such as 36,50,72,10:100 (default: 36)")
    add("--select", default="max-class", help="max-class, per-class, caffe (default: max-class)")
    add("--given", type=Path, help="JSON lines with `id` and `boxes` to take instead of finding any")
    add("--padded", action="store_true", help="pictures of a batch share padding, as Vilio's vg")
    add("--backbone", default="resnet50", help="of grid: resnet50, resnet101, resnet152, transformers:FOLDER")
    add("--stage", type=int, default=4, help="of the ResNet, 1 to 4 (default: 4)")
    add("--grid", help="rows and columns such as 7x7 (default: those of the map)")
    add("--size", type=int, default=448, help="pixels of the shorter side for grid (default: 448)")
    add("--classes", type=Path, help="file with one object name per line")
    add("--attributes", type=Path, help="file with one attribute name per line")
    add("--dtype", choices=("float16", "float32"), default="float32", help="of the stores (default: float32)")
    add_device(parser, "of the network")
    add("--batch", type=int, default=4, help="pictures whose boxes are computed together (default: 4)")
    add("--workers", type=int, default=2, help="threads that read pictures ahead (default: 2)")
    add("--shard", type=int, default=128, help="pictures per file, lost at most when killed (default: 128)")
    add("--bad", choices=("stop", "skip"), default="stop", help="at a bad picture (default: stop)")
    add("--show", type=int, default=0, metavar="N", help="draw N pictures with what was found")
    add("--resume", action="store_true", help="go on with a stopped run")
    add_overwrite(parser, "replace stores that exist")
    configure_engine(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.detect import extract
    from diptych.predict import find_device

    if arguments.workers < 0 or arguments.show < 0:
        raise ConfigError("--workers and --show are numbers from 0 on.")
    device = str(find_device(arguments.device))
    every = _settings(arguments)
    for settings in every if arguments.show else ():
        picture = arguments.out / f"{next(iter(settings.stores()))}.png"
        require_new(picture, overwrite=arguments.overwrite or arguments.resume, kind="a PNG picture")
    for settings in every:
        with chosen_engine(arguments, device=device) as engine, progress(settings.name) as advance:
            report = extract(
                arguments.images,
                arguments.out,
                settings,
                device=device if engine is None else device.partition(":")[0],  # Ray says which
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
    return 0


def _show(images: Path, out: Path, report: "ExtractReport", count: int) -> None:
    """Draw the first store's regions of some pictures, spread over all, beside it."""
    from diptych.detect.listing import list_pictures
    from diptych.features import FeatureStore
    from diptych.report import region_page

    store = FeatureStore(report.stores[0].path)
    pictures = [picture for picture in list_pictures(images) if picture.key in store]
    pictures = pictures[:: max(1, len(pictures) // count)][:count]
    path = out / f"{store.path.name}.png"
    found = [(picture.path, store[picture.key]) for picture in pictures]
    region_page(found, path, meta=store.meta, title=f"{store.meta.detector}, {store.meta.box_rule} boxes")
    print(f"wrote {path}: {len(found)} pictures")


def _settings(arguments: argparse.Namespace) -> "list[ExtractSettings]":
    from diptych.detect import passes

    return passes(
        arguments.detector,
        arguments.boxes.split(","),
        preset=arguments.preset,
        weights=_weights(arguments),
        mode=arguments.select,
        given=arguments.given,
        padded=arguments.padded,
        backbone=arguments.backbone,
        stage=arguments.stage,
        size=arguments.size,
        cells=_cells(arguments.grid),
        classes=names(arguments.classes),
        attributes=names(arguments.attributes),
        dtype=arguments.dtype,
        precision=arguments.precision,
        batch=arguments.batch,
    )


def _weights(arguments: argparse.Namespace) -> dict[str, str]:
    """Files by detector; one without a name is for all."""
    from diptych.detect.passes import detectors_of

    detectors = detectors_of(arguments.detector, arguments.preset)
    found: dict[str, str] = {}
    for word in arguments.weights or []:
        name, equals, path = word.partition("=")
        found |= {name: path} if equals and name in detectors else {"": word}
    return found


def _cells(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not (found := re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)):
        raise ConfigError(f"--grid {text!r}: expected rows and columns from 1 to 99, such as 7x7.")
    return int(found[1]), int(found[2])


def _print(settings: "ExtractSettings", report: "ExtractReport", out: Path) -> None:
    rows = [(out / one.path.name, one.images, one.regions, one.fewer) for one in report.stores]
    table("", ("store", "images", "regions", "images with fewer"), rows, numbers=3)
    speed = f", {report.computed / report.seconds:.3g}/s" if report.computed else ""
    print(f"{report.computed:,} pictures looked at in {report.seconds:.1f} s{speed}")
    bad = report.stores[0].bad
    if bad:
        print(f"{len(bad):,} picture(s) left out; {rows[0][0]}.json lists all:")
        print("\n".join(f"  {fault}" for fault in bad[:5]) + "\n  ..." * (len(bad) > 5))
    if settings.name.endswith("-random"):
        print(f"{settings.name}: weights are random, so boxes and classes mean nothing.")
