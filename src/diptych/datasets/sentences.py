"""Files with one sentence per line, plain or gzipped, files whose lines belong together, and languages."""

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.files import atomic_file, require_file
from diptych.predictions import Predictions

MAX_BYTES = 1 << 30  # unpacked size of a file of sentences
GZIP = b"\x1f\x8b"
BREAK = re.compile(r"\s*[\r\n]\s*")


def languages(lang: str | Sequence[str]) -> tuple[str, ...]:
    """Split a list of languages, such as `en,de`.

    Raises:
        ConfigError: it is empty, or names a language twice.
    """
    parts = lang.split(",") if isinstance(lang, str) else [str(part) for part in lang]
    names = tuple(part.strip() for part in parts)
    if not names or not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"lang is {lang!r}; expected different languages, such as de or en,de.")
    return names


def read_lines(path: Path) -> list[str]:
    r"""Return the lines of a UTF-8 file without their line breaks; a gzipped file is unpacked.

    Only `\n` and `\r\n` end a line: other separators of Unicode occur inside of sentences. The last line
    may lack its end.

    Raises:
        FormatError: the file is not UTF-8, not complete gzip, or unpacks to more than a gigabyte; names it.
    """
    # The content tells whether a file is packed: some tools keep the ending .gz when they unpack.
    with open(require_file(path, "one sentence per line"), "rb") as file:
        packed = file.read(2) == GZIP
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            # One byte beyond the limit tells that there are more; a packed bomb is not unpacked to its end.
            content = stream.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"{path}: damaged gzip file ({error}); get it again.") from error
    if len(content) > MAX_BYTES:
        raise FormatError(f"{path}: unpacks to more than {MAX_BYTES:,} bytes, the most that is read.")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{path}:{number}: not UTF-8 ({error.reason}); expected one sentence.") from error
    # What ends in a line feed has nothing behind it.
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_sentences(path: Path) -> list[str]:
    """As `read_lines`, without white space at both ends.

    Raises:
        FormatError: also if a line is empty; names file and line.
    """
    sentences = [line.strip() for line in read_lines(path)]
    for number, sentence in enumerate(sentences, 1):
        if not sentence:
            raise FormatError(f"{path}:{number}: the line is empty; expected a sentence in every line.")
    return sentences


def read_aligned(paths: Mapping[str, Path]) -> dict[str, list[str]]:
    """Read files of sentences whose lines of equal number belong together.

    Args:
        paths: files by name.

    Raises:
        FormatError: two files have different numbers of lines; names both and their numbers.
    """
    texts = {name: read_sentences(path) for name, path in paths.items()}
    (first, *others) = texts
    for name in others:
        if len(texts[name]) != len(texts[first]):
            raise FormatError(
                f"{paths[first]} has {len(texts[first]):,} lines and {paths[name]} {len(texts[name]):,}; "
                "expected equal numbers, because lines of equal number belong together."
            )
    return texts


def numbered(texts: Mapping[str, list[str]]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line, from 1, and the lines of all files."""
    for number, lines in enumerate(zip(*texts.values(), strict=True), 1):
        yield number, dict(zip(texts, lines, strict=True))


def require_split_of(path: Path, split: str, names: Mapping[str, str]) -> None:
    """Refuse a prediction file that says that it is of another split.

    Lines are joined to examples by their number, and two splits may have equal numbers of lines. The `.npz`
    beside the file decides, which diptych writes; without one, a part between dots of the file's own name,
    such as `test_2017_flickr` of `test_2017_flickr.lc.de`. Other names say nothing, and are read.

    Args:
        names: split by each of its names.

    Raises:
        FormatError: names both splits.
    """
    beside, said = path.with_suffix(".npz"), ""
    if beside != path and beside.is_file():
        try:
            said = str(Predictions.load(beside).meta.get("split") or "")
        except DiptychError:  # any other file of this name
            said = ""
    who = str(beside) if said else "its name"
    named = [said] if said else [names[part] for part in path.name.split(".") if part in names]
    if named and split not in named:
        raise FormatError(
            f"{path}: {who} says split {named[0]!r}, but {split!r} is asked for. Lines are joined by their "
            f"number, so they would get the targets of others. Set --split {named[0]}, or copy the file to "
            "another name if it is not of that split."
        )


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write one word or sentence per line.

    Line breaks inside of one become spaces, because each would shift all later lines.
    """
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{BREAK.sub(' ', line).strip()}\n" for line in lines)
