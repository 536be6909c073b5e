"""Folders of text files as a data set.

    root/wiki.doc, bc1g.doc          VL-BERT's corpora: a sentence or paragraph per line
    root/news.txt, news.txt.gz       any other text, plain or packed

A split is a file, named without its ending; `A+B` is a split made of two files.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.datasets.base import PretrainingSplit, require_split
from diptych.datasets.corpus.passages import read_passages
from diptych.datasets.examples import string_batch
from diptych.datasets.rows import WINDOW
from diptych.errors import ConfigError, FormatError
from diptych.types import Progress

if TYPE_CHECKING:
    from pyarrow import RecordBatch

ENDINGS = (".doc", ".txt", ".doc.gz", ".txt.gz")
OTHERS = {"vocabulary", "vocab"}  # files that lie beside texts


class Corpus(PretrainingSplit):
    """Passages of one or more text files, without images; the id is `FILE/LINE` of the first line.

    Lines are joined until a passage has `words` words; an empty line ends it, as the end of a document. A
    line of twice as many words or more becomes several passages. Files are streamed into the table of the
    cache, which is memory-mapped, so their size does not matter for memory.

    Args:
        words: least number of words of a passage, unless its document ends: VL-BERT's `MIN_SEQ_LEN`. The
            tokens are cut by `processor.max_tokens` (`SEQ_LEN`).
        every_line: compat: every line begins a passage and takes the lines that follow it, beyond the end of
            its document, and of the last line from the beginning of the file. So VL-BERT reads most lines
            several times, and only the beginning of long ones.

    Raises:
        FormatError: a file has no words, or is not UTF-8; names it, and the line.
    """

    name = "corpus"
    noun = "passage"
    labeled = False

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        words: int = 64,
        every_line: bool = False,
        limit: int | None = None,
    ) -> None:
        if words < 1:
            raise ConfigError(f"data.words is {words}; expected at least 1 word per passage.")
        self.settings = {"words": words, "every_line": every_line}
        super().__init__(root, split, limit=limit)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        return tuple(_files(root))

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        return False  # any folder may have a text file

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        files, names = _files(root), split.split("+")
        for name in names:
            require_split(name, root, tuple(files))
            if len(files[name]) > 1:
                both = " and ".join(file.name for file in files[name][:2])
                raise ConfigError(
                    f"{root} has {both}, so the split {name!r} is not clear; remove one of them."
                )
        if len(set(names)) < len(names):
            raise ConfigError(f"{split!r} names a file twice; expected each once.")
        return tuple(files[name][0] for name in names)

    def read(self) -> "Iterable[RecordBatch]":
        for path in self.files:
            yield from self._windows(path)

    def _windows(self, path: Path) -> "Iterator[RecordBatch]":
        name, before, part, empty = _split_of(path), 0, 0, True
        ids, texts = list[str](), list[str]()
        for line, text in read_passages(path, **self.settings):
            # Several passages may begin in one long line.
            before, part = line, part + 1 if line == before else 1
            # Passages of line 7: `wiki/7`, `wiki/7.2`, `wiki/7.3`.
            ids.append(f"{name}/{line}" if part == 1 else f"{name}/{line}.{part}")
            texts.append(text)
            empty = False
            if len(ids) == WINDOW:
                yield _window(path, ids, texts)
                ids, texts = [], []
        if ids:
            yield _window(path, ids, texts)
        if empty:
            raise FormatError(f"{path}: holds no words; expected text, a sentence or paragraph per line.")

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.corpus.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _window(path: Path, ids: list[str], texts: list[str]) -> "RecordBatch":
    try:
        return string_batch(ids=ids, texts=texts)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _files(root: Path) -> dict[str, list[Path]]:
    """Text files by the name of their split."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        name = _split_of(path)
        # A name may have two files, plain and packed; asking for that split tells so.
        if name not in OTHERS and path.name.endswith(ENDINGS) and path.is_file():
            found.setdefault(name, []).append(path)
    return found


def _split_of(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]
