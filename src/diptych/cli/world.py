"""Make a miniature meme data set: pictures, texts, labels, region features, offline.

It has the layout of Hateful Memes. A meme is positive when its text contradicts its picture, so neither the
text alone nor the picture alone tells anything. Same seed, same bytes.

try:
  diptych world memes --size 2000 --seed 0
"""

import argparse
from pathlib import Path

from diptych.cli.screen import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--size", type=int, default=2000, help="number of memes (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.fabricate import fabricate

    with progress("making memes") as advance:
        report = fabricate(
            arguments.out,
            size=arguments.size,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            progress=advance,
        )
    print(f"wrote {report.root}: {report.size} memes, seed {report.seed}")
    for split, count in report.splits.items():
        print(f"  {split:<12} {count:>7,} memes")
    print(f"next: diptych train experiment=hateful_memes/uniter_tiny root={arguments.out}")
    return 0
