"""Train fastText sentence vectors on the texts of a data set.

try:
  diptych fasttext memes vectors.bin
  diptych fasttext memes vectors.bin --model skipgram --dim 100 --min-count 1 --epochs 100      as nav13n does
  diptych train experiment=hateful_memes/text_fasttext root=memes fasttext.path=vectors.bin
"""

import argparse

from diptych.cli.options import add_overwrite
from diptych.cli.texts import add_texts, read_texts
from diptych.files import require_apart


def configure(parser: argparse.ArgumentParser) -> None:
    add_texts(parser)
    parser.add_argument("--model", choices=("cbow", "skipgram"), default="cbow", help="default: cbow")
    parser.add_argument("--dim", type=int, default=150, help="width of a vector (default: 150)")
    parser.add_argument("--min-count", type=int, default=5, help="leave out rarer words (default: 5)")
    parser.add_argument("--epochs", type=int, default=5, help="default: 5")
    parser.add_argument("--bucket", type=int, default=200_000, help="subword rows (default: 200000)")
    parser.add_argument("--threads", type=int, default=1, help="more than 1 is faster but not reproducible")
    parser.add_argument("--line-suffix", default="", help='compat: "/n" reproduces the DrivenData baseline')
    add_overwrite(parser, "replace the file if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.text import FastText, train_fasttext

    require_apart(arguments.out, [arguments.root])  # the vectors must not replace the texts
    texts = read_texts(arguments)
    train_fasttext(
        texts,
        arguments.out,
        model=arguments.model,
        dim=arguments.dim,
        min_count=arguments.min_count,
        epochs=arguments.epochs,
        bucket=arguments.bucket,
        threads=arguments.threads,
        line_suffix=arguments.line_suffix,
        overwrite=arguments.overwrite,
    )
    size = arguments.out.stat().st_size / 1e6
    # Opened again: what was written must load, and the library decides on the width.
    dim = FastText(arguments.out).dim
    print(f"wrote {arguments.out}: {dim} numbers per text, {size:.1f} MB, from {len(texts)} texts")
    return 0
