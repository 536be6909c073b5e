"""Where the files of Multi30k lie: the official tree, parts of it, or all files in one folder."""

from dataclasses import dataclass
from pathlib import Path

from diptych.datasets.caption_lines import NAMES, fields, find_lines
from diptych.datasets.photographs import BASES
from diptych.errors import ConfigError, nearest

SPLITS = (
    "train",
    "val",
    "test_2016_flickr",
    "test_2017_flickr",
    "test_2017_mscoco",
    "test_2018_flickr",
)
LANGUAGES = ("en", "de", "fr", "cs")
# MM-BERT's readers have the older name; task 2 has it, too.
OLDER = {"test_2016_flickr": "test_2016"}
TASKS = {1: "task1", 2: "task2"}
DESCRIPTIONS = 5
FIVE = {"train": ("train_frcnn_5captions_both.json", "train_frcnn_5captions.json")}  # of MM-BERT
Caption = tuple[str, int]
"""Language, and number of the description in task 2; 0 in task 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which of the files under a root are read.

    Args:
        descriptions: 1 for the translations of task 1, 5 for the descriptions of task 2.
        tokenized: the files of the Moses tokenizer, lower-cased and normalized, instead of raw text.
    """

    root: Path
    descriptions: int
    tokenized: bool

    def text(self, split: str, lang: str, number: int = 0) -> Path | None:
        """The file of a language; None if there is none."""
        dot = f".{number}" if number else ""
        middle = f".lc.norm.tok{dot}.{lang}" if self.tokenized else f"{dot}.{lang}"
        names = [f"{stem}{middle}{end}" for stem in stems(split) for end in ("", ".gz")]
        return self._first(["tok" if self.tokenized else "raw"], names)

    def images(self, split: str) -> Path | None:
        """The list of images; None if there is none."""
        names = [
            f"{stem}{end}"
            for stem in stems(split)
            for end in ((".txt", ".images") if self.descriptions == 1 else ("_images.txt", ".images"))
        ]
        return self._first(["image_splits"], names)

    def lines(self, split: str) -> Path | None:
        """MM-BERT's JSON lines of a split, if there are no official files of it; None if there are none.

        Those of the five descriptions are the rows of task 2, set after set.
        """
        if any(self.text(split, lang, int(self.descriptions > 1)) for lang in LANGUAGES):
            return None
        names = NAMES.get(split, ()) if self.descriptions == 1 else FIVE.get(split, ())
        folders = (self.root / base for base in BASES)
        return find_lines(folders, names, field="caption_en", without="word_en")

    def languages(self, split: str) -> tuple[str, ...]:
        """The languages of a split."""
        if (path := self.lines(split)) is not None:
            return tuple(lang for lang in LANGUAGES if f"caption_{lang}" in fields(path))
        return tuple(lang for lang in LANGUAGES if self.text(split, lang, int(self.descriptions > 1)))

    def captions(self, split: str, lang: str) -> dict[Caption, Path]:
        """The files of a language: one, or one per description.

        Raises:
            ConfigError: there is none, or a description is missing.
        """
        if lang not in LANGUAGES:
            raise ConfigError(
                f"lang is {lang!r}; expected some of {', '.join(LANGUAGES)}.{nearest(lang, LANGUAGES)}"
            )
        numbers = range(1, DESCRIPTIONS + 1) if self.descriptions > 1 else (0,)
        found = {(lang, number): self.text(split, lang, number) for number in numbers}
        for (_, number), path in found.items():
            if path is None:
                which = f"description {number} in the language" if number else "sentences in the language"
                kind = "tokenized" if self.tokenized else "raw"
                raise ConfigError(
                    f"{self.root} has no {which} {lang!r} of split {split!r} as {kind} text; it has "
                    f"{', '.join(self.languages(split)) or 'none'}. Set lang to one of these."
                )
        return {key: path for key, path in found.items() if path is not None}

    def _first(self, parts: list[str], names: list[str]) -> Path | None:
        task = TASKS[1 if self.descriptions == 1 else 2]
        folders = [Path(base, task, part) for base in BASES for part in parts]
        # The flat folder comes last, and holds the translations alone: its names do not tell the task.
        folders += [Path(base, task) for base in BASES]
        folders += [Path(base) for base in BASES] if self.descriptions == 1 else []
        paths = (self.root / folder / name for folder in folders for name in names)
        return next((path for path in paths if path.is_file()), None)


def stems(split: str) -> tuple[str, ...]:
    """The names of a split in names of files, its own first."""
    return (split, OLDER[split]) if split in OLDER else (split,)
