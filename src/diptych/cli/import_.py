"""Turn region features of other formats into a feature store.

The format is detected. SOURCE is TSV (LXMERT, Vilio, Caffe, Oscar, VinVL; also compressed, or a folder of
them), LMDB (mmf, ViLBERT, VOLTA, UNITER), HDF5 (VOLTA), a ZIP of JSON (VL-BERT), or a folder of .json
(VL-BERT, nav13n), of .npz (UNITER, MILVLG), or of .npy and _info.npy (mmf).

try:
  diptych import hm_vgattr3636.tsv features/vgattr36 --detector vgattr --dtype float16
  diptych train experiment=hateful_memes/uniter_base root=memes features=features/vgattr36
"""

import argparse
from pathlib import Path

from diptych.cli.options import add_overwrite
from diptych.cli.output import progress
from diptych.errors import FormatError
from diptych.files import require_file


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a file or folder")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument(
        "--detector", default="unknown", help="detector of the features, e.g. vgattr; models check it"
    )
    parser.add_argument("--classes", type=Path, help="file with one object name per line")
    parser.add_argument("--attributes", type=Path, help="file with one attribute name per line")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="default: float32")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip", "truncate"),
        default="raise",
        help="for a bad image: stop, leave it out, or cut off surplus features (default: raise)",
    )
    parser.add_argument(
        "--boxes",
        choices=("check", "clip", "scaled", "xywh", "yxyx"),
        default="check",
        help="check: stop at a box outside the picture; clip: clip it. Other layouts: scaled (fractions of "
        "the picture), xywh (width and height), yxyx (y before x)",
    )
    parser.add_argument("--width", type=int, help="numbers per region (default: that of most images)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted import")
    add_overwrite(parser, "replace the store if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.features import import_features

    # In bytes for text files and in images for others: what a format knows without reading on.
    with progress("importing") as advance:
        report = import_features(
            arguments.source,
            arguments.out,
            detector=arguments.detector,
            classes=names(arguments.classes),
            attributes=names(arguments.attributes),
            dtype=arguments.dtype,
            on_error=arguments.on_error,
            boxes=arguments.boxes,
            feature_dim=arguments.width,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            progress=advance,
        )
    for line in report.lines():
        print(line)
    return 0


def names(path: Path | None) -> tuple[str, ...]:
    """Read a file with one name per line; no file means no names.

    Raises:
        FormatError: the file does not exist, or is not UTF-8.
    """
    if path is None:
        return ()
    try:
        # Empty lines count: the number of the line is the class that the detector gives.
        return tuple(require_file(path, "one name per line").read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 (byte {error.start}); expected one name per line.") from error
