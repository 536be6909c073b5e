"""Multimodal lexical translation as a data set (Lala and Specia, 2018, https://aclanthology.org/L18-1602).

Which translation of an ambiguous English word is right in a sentence and its picture? Official files of
sheffieldnlp/mlt, lower-cased and tokenized, one row per word:

    ENDE_MLTD_formatted.txt, ENFR_...     training and validation together
    test_sets/ende_test2016.txt, ...      test sets of 2016 to 2018
    human2018.de, human2018.fr            the words of 2018, and whether people needed the picture
    2018evaluation/MLTreferences/...      references, for systems that translate whole sentences

Splits without these files are read from MM-BERT's JSON lines; see `diptych.datasets.caption_lines`.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from diptych.datasets.base import Split, require_split
from diptych.datasets.caption_lines import NAMES, find_lines
from diptych.datasets.locate import locate
from diptych.datasets.mlt.records import Row, found_in, read_json_rows, read_references, read_rows
from diptych.datasets.photographs import Photographs, image_key, image_name, require_kind
from diptych.datasets.sentences import read_lines, require_split_of, write_lines
from diptych.errors import ConfigError, FormatError, nearest
from diptych.predictions import Predictions
from diptych.types import Example, Pair, Progress

LANGUAGES = ("de", "fr")
TABLE = "MLT_vocab.txt"
REFERENCES = "references_2018"
HUMAN = "human_2018"
SPLITS = (
    "train",
    "val",
    "test_2016_flickr",
    "test_2017_flickr",
    "test_2017_mscoco",
    "test_2018_flickr",
    HUMAN,
)
FOLDERS = (
    "",
    "test_sets",
    "2018evaluation/MLTreferences",
    "MLTreferences",
    "mlt",
    "mlt/test_sets",
    "mlt/2018evaluation/MLTreferences",
    "data",
)
LISTS = (
    "image_splits",
    "task1/image_splits",
    "data/task1/image_splits",
    "multi30k/data/task1/image_splits",
    "",
)


class Mlt(Split):
    """The ambiguous words of one split, in file order; ids are `SPLIT/LINE`, counted from 1.

    An example has the word and the sentence as texts, and as target the right translations. `val` needs a
    file of its own, or the list of Multi30k's validation images, which then are no part of `train`. The split
    `references_2018` holds the official references, to evaluate files of translated sentences.

    Args:
        lang: language of the translations, `de` or `fr`.
        image: False leaves the pictures out.
        image_key: key of a picture in the feature store; see `photographs.image_key`.
    """

    name = "mlt"
    noun = "word"
    suffix = ".txt"
    overlaps = frozenset({frozenset({"test_2018_flickr", HUMAN})})

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        lang: str = "de",
        image: bool = True,
        image_key: str = "stem",
        limit: int | None = None,
    ) -> None:
        if lang not in LANGUAGES:
            raise ConfigError(
                f"lang is {lang!r}; expected one of {LANGUAGES}.{nearest(str(lang), LANGUAGES)}"
            )
        self.settings = {"lang": lang, "image": image, "image_key": require_kind(image_key)}
        super().__init__(root, split, limit=limit)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        lang = settings.get("lang", "de")
        # The references are no split of examples: they are named only to evaluate sentences.
        return tuple(split for split in SPLITS if _files(root, split, lang))

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        # A root may have the files of one language only.
        return any(cls.splits(root, lang=lang) for lang in LANGUAGES)

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        files = _files(root, split, settings.get("lang", "de"))
        if not files:
            require_split(split, root, cls.splits(root, **settings))
        return files

    def read(self) -> Iterable[Example]:
        return self._references() if self.split == REFERENCES else self._words()

    def _references(self) -> Iterator[Example]:
        for number, row in enumerate(read_references(self.files[0]), 1):
            yield Example(
                id=f"{self.split}/{number}",
                pairs=(Pair(image=None, text=row.word),),
                target=dict.fromkeys(row.translations, 1.0),
                meta={"line": row.line},
            )

    def _words(self) -> Iterator[Example]:
        for number, row in self._rows():
            where = f"{self.files[0]}:{number}"
            key = image_key(image_name(row.image), self.settings["image_key"], where=where)
            pair = Pair(image=key if self.settings["image"] else None, text=row.word, text_b=row.sentence)
            yield Example(
                id=f"{self.split}/{number}",
                pairs=(pair,),
                target=dict.fromkeys(row.translations, 1.0),
                group=row.used,
            )

    def _rows(self) -> Iterator[tuple[int, Row]]:
        """The rows of the split and their lines."""
        path, *lists = self.files
        if path.suffix == ".json":
            yield from enumerate(read_json_rows(path, self.settings["lang"]), 1)
            return
        held = {image_name(line) for line in read_lines(lists[0])} if lists else set()
        for number, row in enumerate(read_rows(path, human=self.split == HUMAN), 1):
            # val takes the rows whose picture is in the list, train all others.
            if not lists or (image_name(row.image) in held) == (self.split == "val"):
                yield number, row

    @cached_property
    def _photographs(self) -> Photographs:
        # Of this split alone: names may end differently in others.
        lines = [row.image for _, row in self._rows()]
        path, kind = self.files[0], self.settings["image_key"]
        return Photographs(self.root, lines, kind, where=str(path), folder=path.parent)

    def image_path(self, key: str) -> Path:
        return self._photographs.path(key)

    @property
    def answer_table(self) -> Path | None:
        """MM-BERT's list of 1,536 German words; there is none of French ones."""
        if self.settings["lang"] != "de":
            return None
        return locate(self.root, [TABLE], folders=FOLDERS, fits=Path.is_file)

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write one word per line.

        Raises:
            FormatError: a row has no answer, or the split has references only.
        """
        if self.split == REFERENCES:
            raise FormatError(f"{path}: {REFERENCES} evaluates translated sentences; predict another split.")
        predictions = predictions.unique().align(self.ids)
        if predictions.answers is None:
            raise FormatError(f"{path}: the predictions have no answers; expected a word for every row.")
        write_lines(path, predictions.answers)

    def read_predictions(self, path: Path) -> Predictions:
        """Read a file of `write`; for the references, one translated sentence of the test set per line.

        A translated sentence answers with the first right translation it contains: as a word, in French also
        inside of a word. It is the official evaluation, which also accepts the line number as a translation.

        Raises:
            FormatError: the file has too few lines or another number than the split, or names another split.
        """
        lines = read_lines(path)
        if self.split == REFERENCES:
            return self._found(lines, path)
        if len(lines) != len(self):
            raise FormatError(
                f"{path}: {len(lines):,} lines, but split {self.split!r} has {len(self):,} rows; expected "
                "one word per row. Is the file of another split?"
            )
        require_split_of(path, self.split, {name: name for name in SPLITS})
        return Predictions(ids=self.ids, answers=tuple(line.strip() for line in lines), form="answers")

    def _found(self, lines: list[str], path: Path) -> Predictions:
        # References name lines of the file of translations, so a shorter file is of another test set.
        last = max(example.meta["line"] for example in self)
        if last >= len(lines):
            raise FormatError(
                f"{path}: {len(lines):,} lines, but the references name line {last:,}, counted from 0; "
                "expected the translations of the whole test set of 2018."
            )
        # Of the split `references_2018` no model writes a file: what is evaluated are these sentences.
        require_split_of(path, "test_2018_flickr", {name: name for name in SPLITS})
        # As the official scripts: the one of French looks inside of words.
        inside = self.settings["lang"] == "fr"
        answers = (found_in(lines[one.meta["line"]], [*one.target], inside=inside) for one in self)
        return Predictions(ids=self.ids, answers=tuple(answers), form="answers")

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.mlt.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _files(root: Path, split: str, lang: str) -> tuple[Path, ...]:
    """The file of a split; behind it the list of validation images, if these lie in the same file."""
    pair, both = f"en{lang}", f"EN{lang.upper()}_MLTD_formatted.txt"
    # Files that hold one split alone; where train and val have none, the file of both serves, see below.
    names: Mapping[str, list[str]] = {
        "train": [f"{pair}_train.txt", f"MLTD_{pair}_train_Faidon.txt"],
        "val": [f"{pair}_val.txt", f"MLTD_{pair}_val_Faidon.txt"],
        "test_2016_flickr": [f"{pair}_test2016.txt"],
        "test_2017_flickr": [f"{pair}_test2017flickr.txt"],
        "test_2017_mscoco": [f"{pair}_test2017mscoco.txt"],
        "test_2018_flickr": [f"MLTtest2018{pair}.txt"],
        HUMAN: [f"human2018.{lang}"],
        REFERENCES: [f"EN{lang.upper()}_MLTD_test2018.txt"],
    }
    if split not in names:
        return ()
    path = locate(root, names[split], folders=FOLDERS, fits=Path.is_file)
    if path is None:
        path = find_lines((root / folder for folder in FOLDERS), NAMES.get(split, ()), field=f"word_{lang}")
    # A file of its own needs no list.
    if path is not None or split not in ("train", "val"):
        return () if path is None else (path,)
    path = locate(root, [both], folders=FOLDERS, fits=Path.is_file)
    held = locate(root, ["val.txt", "val.images"], folders=LISTS, fits=Path.is_file)
    # Without the list, all rows are for training: none can be held out.
    if path is None or (held is None and split == "val"):
        return ()
    return (path,) if held is None else (path, held)
