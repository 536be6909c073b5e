"""Write a feature store as a TSV in the LXMERT and Vilio layout.

try:
  diptych export features/vgattr36 hm_vgattr3636.tsv
"""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="a feature store")
    parser.add_argument("out", type=Path, help="a new .tsv file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.features import FeatureStore, export_tsv

    store = FeatureStore(arguments.store)
    export_tsv(store, arguments.out, overwrite=arguments.overwrite)
    size = arguments.out.stat().st_size / 1e6
    print(f"wrote {arguments.out}: {len(store)} images, {size:,.1f} MB")
    return 0
