"""Words of pictures on the command line: of one meme, and of the memes of a split that have no text."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diptych.cli.output import progress, visible
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.datasets import Split
    from diptych.detect.ocr import Chosen, TextReader
    from diptych.predict import Predictor
    from diptych.predictions import Predictions
    from diptych.types import Tokenizer


class Read(NamedTuple):
    """The text of a meme, and who read it from the picture; None if it was given."""

    text: str
    reader: str | None

    def as_dict(self) -> dict[str, str]:
        """Return the fields of JSON output."""
        source = (
            {"text_source": "given"} if self.reader is None else {"text_source": "ocr", "reader": self.reader}
        )
        return {"text": self.text, **source}


def spaced(
    reader: "TextReader", arguments: argparse.Namespace, tokenizer: "Tokenizer | None" = None
) -> "TextReader":
    """Let a reader put back lost spaces, by --words, else by the vocabulary of a model."""
    from diptych.detect.spaces import Spaced, Spaces, read_list, whole_words

    if arguments.words is not None:
        return Spaced(reader, Spaces(whole_words(read_list(arguments.words))))
    return reader if tokenizer is None else Spaced(reader, Spaces(whole_words(tokenizer.tokens)))


def text_of(
    arguments: argparse.Namespace, pictures: Sequence[Path], tokenizer: "Callable[[], Tokenizer | None]"
) -> Read:
    """Return the text given on the command line, else the words in the pictures; tell which on the terminal.

    Args:
        tokenizer: gives that of the model; not asked where a text is given.

    Raises:
        ConfigError: words must be read, and RapidOCR is not installed.
        FormatError: a picture cannot be read.
    """
    # An empty text is a text, too: somebody said that there are no words.
    if arguments.text is not None:
        return Read(arguments.text, None)
    from diptych.detect.ocr import arranged, words
    from diptych.detect.rapid import RapidReader
    from diptych.images import open_image

    # Words are read only if needed, so a missing reader is no error with --text.
    try:
        engine = RapidReader()
    except ConfigError as error:
        raise ConfigError(f"no --text is given, and {error}, or add --text.") from error
    with engine:
        reader = spaced(engine, arguments, tokenizer())
        lines = reader.read([open_image(picture) for picture in pictures])
    text = " ".join(filter(None, (words(arranged(found), arguments.lines) for found in lines)))
    # Not every verb that has words has --json.
    if not getattr(arguments, "json", False):
        shown = f"text, read from the picture: {text}" if text else "no words were found in the picture"
        print(visible(f"{shown}   ({reader.identity()})"))
    return Read(text, reader.identity())


class EmptyTexts:
    """Predicts splits after reading the words of their memes without text.

    Args:
        out: folder in which the words of every split stay, as `SPLIT.ocr.jsonl`.
        notes: what was read, for the terminal.
    """

    def __init__(self, predictor: "Predictor", reader: "TextReader", out: Path, *, lines: "Chosen") -> None:
        self.predictor, self.reader, self.out, self.lines = predictor, reader, out, lines
        self.notes: list[str] = []

    def settings(self) -> dict[str, str]:
        """Return what prediction files record, so that other texts are other predictions."""
        return {"ocr": f"{self.reader.identity()}, {self.lines}"}

    def __call__(self, dataset: "Split", **settings: Any) -> "Predictions":
        """Predict a split, see `Predictor.predict_dataset`."""
        from diptych.data import Reworded

        return self.predictor.predict_dataset(Reworded(dataset, self._texts(dataset)), **settings)

    def _texts(self, dataset: "Split") -> dict[str, str]:
        from diptych.data.stream import stream
        from diptych.detect.listing import PictureFile
        from diptych.detect.words import read_words

        empty = {
            example.id: example.pairs[0].image
            for example in stream(dataset)
            # A text that is there was written by people; reading must not replace it.
            if not any(pair.text.strip() for pair in example.pairs)
        }
        pictures = [
            PictureFile(key, dataset.images[key])
            for key in dict.fromkeys(empty.values())
            if isinstance(key, str)
        ]
        found: Mapping[str, str] = {}
        if pictures:
            path = self.out / f"{dataset.split}.ocr.jsonl"
            with progress(f"reading words of {dataset.split}") as advance:
                # Resumed: an interrupted prediction does not read its pictures again.
                found = read_words(
                    pictures, path, self.reader, chosen=self.lines, resume=True, progress=advance
                ).texts
        read = sum(map(bool, found.values()))
        self.notes.append(
            f"{dataset.split}: {len(empty)} of {len(dataset)} {dataset.noun}s have no text; words were found "
            f"in {read} of their {len(pictures)} pictures ({self.reader.identity()})"
        )
        return {id: found[key] for id, key in empty.items() if isinstance(key, str) and found.get(key)}
