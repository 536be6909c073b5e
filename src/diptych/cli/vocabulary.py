"""Learn a WordPiece vocabulary from the texts of a data set.

Training learns a vocabulary if none is given. To start from a published BERT, use that BERT's vocabulary.

try:
  diptych vocabulary memes vocabulary.txt --size 4000
  diptych train experiment=hateful_memes/text_bert root=memes vocabulary=vocabulary.txt
"""

import argparse

from diptych.cli.options import add_overwrite
from diptych.cli.texts import add_texts, read_texts
from diptych.files import reserved


def configure(parser: argparse.ArgumentParser) -> None:
    add_texts(parser)
    parser.add_argument("--size", type=int, default=8000, help="maximum number of tokens (default: 8000)")
    parser.add_argument("--cased", action="store_true", help="keep capitals and accents")
    add_overwrite(parser, "replace the file if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.text import learn_vocabulary, write_vocabulary

    options = {"overwrite": arguments.overwrite, "kind": "a vocabulary", "inputs": [arguments.root]}
    with reserved(arguments.out, **options):  # a name that cannot be written fails before the reading
        texts = read_texts(arguments)
        # The file stores no case; converters and models find it out from the tokens.
        tokens = learn_vocabulary(texts, arguments.size, lowercase=not arguments.cased)
        write_vocabulary(arguments.out, tokens)
    print(f"wrote {arguments.out}: {len(tokens)} tokens from {len(texts)} texts")
    return 0
