"""Emoji as a data set of captions: one picture, and its name in each language.

    emoji.jsonl    one emoji per line: {"id": "1F418", "image": "img/1F418.png", "split": "test",
                    "names": {"en": "elephant", "de": "Elefant"}, "tags": {"en": ["animal"], "de": ["Tier"]}}

`diptych world OUT --data emoji` writes it; there is no official file.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.datasets.caption_lines import picture, read_objects
from diptych.datasets.captions import MatchSplit
from diptych.datasets.sentences import languages
from diptych.documents import shorten
from diptych.errors import ConfigError, FormatError, nearest
from diptych.types import Example, Pair, Progress

FILE = "emoji.jsonl"
WORDS = ("names", "tags")


class Emoji(MatchSplit):
    """The emoji of one split, language after language, with ids `HEXCODE/LANG`; all pairs are true.

    Args:
        lang: language of the words; several as a list or joined by commas.
        words: `names`, as *Elefant*; `tags`, the keywords joined by commas.

    Raises:
        ConfigError: the split does not exist, or an argument is invalid.
        FormatError: a record is invalid or lacks a language; names file and line.
    """

    name = "emoji"
    names = ("train", "val", "test")
    folders = ("",)
    picture_folders = ("img",)
    sources = ("emojibase", "font")

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        lang: str | Sequence[str] = "en",
        words: str = "names",
        limit: int | None = None,
    ) -> None:
        if words not in WORDS:
            raise ConfigError(f"words is {words!r}; expected one of {WORDS}.{nearest(str(words), WORDS)}")
        self.settings = {"lang": ",".join(languages(lang)), "words": words}
        super().__init__(root, split, limit=limit)

    @classmethod
    def files_of(cls, root: Path, split: str) -> tuple[Path, ...]:
        return (root / FILE,) if (root / FILE).is_file() else ()

    def read_split(self, split: str) -> Iterator[Example]:
        records = [
            (f"{self.root / FILE}:{line}", record)
            for line, record in read_objects(self.root / FILE)
            if _split(record, f"{self.root / FILE}:{line}") == split
        ]
        for lang in languages(self.settings["lang"]):
            for where, record in records:
                image = picture(record, where)
                key = record.get("id")
                if not isinstance(key, str) or key != Path(image).stem:
                    raise FormatError(f"{where}: id is {shorten(key)}; expected that of {image}.")
                # Some emoji have no tags in some language.
                if text := self._text(record, lang, where):
                    yield Example(id=f"{key}/{lang}", pairs=(Pair(image=key, text=text),), target=1)

    def _text(self, record: Mapping[str, Any], lang: str, where: str) -> str:
        words = self.settings["words"]
        texts = record.get(words)
        texts = texts if isinstance(texts, dict) else {}
        found = texts.get(lang)
        # Names are one text, tags a list of texts.
        parts: list[Any] = found if isinstance(found, list) else [found]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise FormatError(
                f"{where}: its {words} in {lang!r} are {shorten(found)}; expected texts. It has "
                f"{', '.join(map(str, texts)) or 'no language'}."
            )
        return ", ".join(parts)

    def image_path(self, key: str) -> Path:
        return self.root / "img" / f"{key}.png"

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.emoji.world import write_world

        return write_world(
            folder,
            size=size,
            seed=seed,
            emojibase=settings.get("emojibase"),
            font=settings.get("font"),
            progress=progress,
        )


def _split(record: Mapping[str, Any], where: str) -> str:
    split = record.get("split")
    if split not in Emoji.names:
        raise FormatError(f"{where}: split is {shorten(split)}; expected one of {Emoji.names}.")
    return str(split)
