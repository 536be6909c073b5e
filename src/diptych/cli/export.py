"""Write a feature store in another format.

tsv            ten columns (LXMERT, Vilio)           vilbert-lmdb   LMDB (ViLBERT, 12-in-1, VOLTA)
caffe-tsv      six columns (bottom-up attention)     vlbert-json    a folder of JSON (VL-BERT)
mmf-lmdb       LMDB (detectron.lmdb)                 vlbert-zip     a ZIP of JSON (VL-BERT, MM-BERT)
mmf-npy        a folder of .npy and _info.npy        nav13n-json    a folder of JSON (UNITER of nav13n)
uniter-lmdb    LMDB and the numbers of boxes         volta-hdf5     HDF5 (VOLTA)
uniter-npz     a folder of .npz

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
