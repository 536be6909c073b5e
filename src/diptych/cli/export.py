"""Write a feature store in another format.

tsv            a TSV of ten columns (LXMERT, Vilio)
mmf-lmdb       an LMDB (mmf's detectron.lmdb)
uniter-npz     a folder of .npz files (UNITER)
volta-hdf5     an HDF5 file (VOLTA)

try:
  diptych export features/vgattr36 hm_vgattr3636.tsv
  diptych export features/vgattr36 detectron.lmdb --format mmf-lmdb
"""

import argparse
from pathlib import Path

from diptych.cli.options import add_overwrite
from diptych.cli.output import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="a feature store")
    parser.add_argument("out", type=Path, help="a new file or folder")
    parser.add_argument("--format", default="tsv", help="a format listed above (default: tsv)")
    add_overwrite(parser, "replace OUT if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.features import export_features

    # `--format` is checked by the library, whose formats are data; a list here would become outdated.
    with progress("exporting") as advance:
        images = export_features(
            arguments.store,
            arguments.out,
            format=arguments.format,
            overwrite=arguments.overwrite,
            progress=advance,
        )
    print(f"wrote {arguments.out}: {images} images")
    return 0
