"""Annotation files of NLVR2: official JSON lines, LXMERT's list, and the categories of 800 sentences.

The official `dev.json` holds one object per line in spite of its name. LXMERT's `valid.json` is one list.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.datasets.base import DuplicateId
from diptych.documents import parse_json, shorten
from diptych.errors import FormatError
from diptych.files import require_file
from diptych.types import Example, Pair

LABELS = ("False", "True")
# ASCII: `\w` would allow letters that look like others.
IDENTIFIER = re.compile(r"[\w.]+-\w+-\w+-\w+", re.ASCII)  # split-set-pair-sentence
MAX_LINE = 1 << 20  # bytes; the longest official line has some 2,000
MARKS = (b'"identifier"', b'"sent')  # begins both `sentence` and LXMERT's `sent`


def looks_like_statements(path: Path) -> bool:
    """Whether the first bytes of a file look like NLVR2's, whatever its name is."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1 << 14)
    return all(mark in start for mark in MARKS)


def read_statements(path: Path, *, together: bool, image_key: str = "{}") -> Iterator[Example]:
    """Read an official file or LXMERT's; which one it is shows in its first character.

    Args:
        together: one pair with both images, instead of one pair for each image.
        image_key: key of an image in the feature stores; `{}` is LXMERT's key.

    Raises:
        FormatError: names file, line (of a list, the number of the record) and field.
    """
    known: dict[str, int] = {}
    for number, record in _records(require_file(path, "an annotation file")):
        try:
            example = _example(record, together=together, image_key=image_key)
        except FormatError as error:
            raise FormatError(f"{path}:{number}: {error}") from error
        # `setdefault` gives the number of the first record with this id, which is this one if it is new.
        if (first := known.setdefault(example.id, number)) != number:
            raise DuplicateId(f"{path}:{number}: identifier {example.id} is already in record {first}.")
        yield example


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield every record with its number, from 1."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        if start.startswith(b"["):
            yield from enumerate(parse_json(file.read(), where=path, advice="Is the file cut off?"), 1)
            return
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if line := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                yield number, parse_json(line, where=f"{path}:{number}", advice="Is the file cut off?")


def _example(record: Any, *, together: bool, image_key: str) -> Example:
    if not isinstance(record, dict):
        raise FormatError(f"got a {type(record).__name__}; expected an object with identifier and sentence.")
    key, sentence = record.get("identifier"), record.get("sentence", record.get("sent"))
    if not isinstance(key, str) or not IDENTIFIER.fullmatch(key):
        raise FormatError(
            f"`identifier` is {shorten(key)}; expected SPLIT-SET-PAIR-SENTENCE, as dev-850-0-1."
        )
    if not isinstance(sentence, str):
        raise FormatError(f"`sentence` of {key} is {shorten(sentence)}; expected a string.")
    left, right = _images(record, key)
    images = image_key.replace("{}", left), image_key.replace("{}", right)
    single = (Pair(image=image, text=sentence) for image in images)
    return Example(
        id=key,
        pairs=(Pair(image=images, text=sentence),) if together else tuple(single),
        target=_label(record.get("label"), key),
    )


def _images(record: dict[str, Any], key: str) -> tuple[str, str]:
    """The keys of the left and the right image: LXMERT's names, which follow from the identifier."""
    pair = key.rpartition("-")[0]
    # Example: `dev-850-0-1` is about the pair `dev-850-0`, whose left image is `dev-850-0-img0`.
    left, right = (record.get(f"img{side}", f"{pair}-img{side}") for side in (0, 1))
    if not (isinstance(left, str) and isinstance(right, str) and left and right):
        raise FormatError(
            f"the images of {key} are {shorten(left)} and {shorten(right)}; expected two names."
        )
    return left, right


def _label(value: Any, key: str) -> str | None:
    """Official labels are strings, LXMERT's are 0 and 1; the scripts ignore case."""
    if value is None:
        return None
    if isinstance(value, bool | int) and value in (0, 1):
        return LABELS[value]
    label = value.capitalize() if isinstance(value, str) else None
    if label not in LABELS:
        raise FormatError(f'`label` of {key} is {shorten(value)}; expected "True" or "False".')
    return label


def read_categories(path: Path) -> dict[str, list[str]]:
    """Read the categories of each sentence of `annotated_dev_examples.txt`, in the order of the file.

    Blocks are separated by blank lines: a sentence, then one line `* CATEGORY` for each of its categories.

    Raises:
        FormatError: names file and line of what is neither.
    """
    categories: dict[str, list[str]] = defaultdict(list)
    sentence: str | None = None
    try:
        text = require_file(path, "a file of annotated sentences").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 (byte {error.start}); expected annotated sentences.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip()):
            sentence = None
        elif line.startswith("* ") and sentence is not None:
            categories[sentence].append(line.removeprefix("* ").strip())
        elif sentence is None and not line.startswith("* "):
            sentence = line
            # Makes an empty list, so that a sentence without categories is known, too.
            _ = categories[sentence]
        else:
            raise FormatError(f"{path}:{number}: got {shorten(line)}; expected a sentence and `* CATEGORY`.")
    return dict(categories)


def read_verdicts(path: Path) -> dict[str, str]:
    """Read `identifier,True` per line, without header and in any case, as the official script does.

    Raises:
        FormatError: names file and line of what is no verdict, or repeats an identifier.
    """
    verdicts: dict[str, str] = {}
    with require_file(path, "a CSV of predictions").open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            # "replace": what is no UTF-8 then fails as an identifier, with its line.
            cells = [cell.strip() for cell in line.decode("utf-8-sig", "replace").split(",")]
            if cells == [""]:
                continue
            if len(cells) != 2 or not IDENTIFIER.fullmatch(cells[0]) or cells[1].capitalize() not in LABELS:
                raise FormatError(
                    f"{path}:{number}: got {shorten(','.join(cells))}; expected IDENTIFIER,True or "
                    "IDENTIFIER,False, without a header."
                )
            if cells[0] in verdicts:
                raise FormatError(f"{path}:{number}: identifier {cells[0]} occurs a second time.")
            verdicts[cells[0]] = cells[1].capitalize()
    return verdicts


def to_line(record: dict[str, Any]) -> str:
    """One line of an official file."""
    return json.dumps(record, ensure_ascii=True) + "\n"
