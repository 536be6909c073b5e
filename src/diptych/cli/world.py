"""Make a miniature data set offline: pictures, texts, labels, region features.

It has the layout of Hateful Memes, or of the data set of --data. A meme is positive if its text contradicts
its picture, so the text alone or the picture alone predicts nothing. The same seed gives the same bytes.

try:
  diptych world memes --size 2000 --seed 0
  diptych world table --data mami_b
  diptych world emoji --data emoji
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
    add = parser.add_argument
    add("--emojibase", type=Path, metavar="FILE", help="emoji: words (default: `diptych fetch emojibase`)")
    add("--font", type=Path, metavar="FILE", help="emoji: font (default: NotoColorEmoji.ttf of the system)")
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
            sources=_sources(arguments, name),
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


def _sources(arguments: argparse.Namespace, name: str) -> dict[str, Path]:
    """The files of which a world is made: given, or fetched."""
    from diptych.convert import fetch_listed
    from diptych.datasets import named_data
    from diptych.files import require_new

    given = {"emojibase": arguments.emojibase, "font": arguments.font}
    sources = {key: path for key, path in given.items() if path is not None}
    if "emojibase" in named_data(name).kind.sources and "emojibase" not in sources:
        # Before a download for a folder that must be kept.
        require_new(arguments.out, overwrite=arguments.overwrite, kind="a world")
        sources["emojibase"] = fetch_listed("emojibase")
    return sources
