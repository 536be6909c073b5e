"""Make a miniature data set offline: pictures, texts, labels, region features.

It has the layout of Hateful Memes, or of the data set of --data. A meme is positive if its text contradicts
its picture, so the text alone or the picture alone predicts nothing. The same seed gives the same bytes.

try:
  diptych world memes --size 2000 --seed 0
  diptych world table --data mami_b
"""

import argparse
from pathlib import Path

from diptych.cli.options import add_data, add_overwrite
from diptych.cli.output import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--size", type=int, default=2000, help="memes, questions or images (default: 2000)")
    add_data(parser, "write the files of this data set (default: hateful_memes)", settings=False)
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    add_overwrite(parser, "replace the folder if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych import conf
    from diptych.datasets import fabricate, named_data

    name = arguments.data or "hateful_memes"
    # Drawing takes most of the time.
    with progress("drawing") as advance:
        report = fabricate(
            arguments.out,
            name,
            size=arguments.size,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            progress=advance,
        )
    noun = named_data(name).kind.noun
    print(f"wrote {report.root}: size {report.size}, seed {report.seed}")
    for split, count in report.splits.items():
        print(f"  {split:<16} {count:>7,} {noun}s")
    tiny = ["hateful_memes/uniter_tiny"] if arguments.data is None else []
    # Only experiments that exist: the printed command must work.
    tiny += {f"{name}/lxmert_tiny", f"pretrain/{name}_tiny"}.intersection(conf.names("experiment"))
    if tiny:
        print(f"next: diptych train experiment={tiny[0]} root={arguments.out}")
    else:
        print(f"next: diptych train model=concat_bert_tiny data={name} root={arguments.out} out=runs/NAME")
    return 0
