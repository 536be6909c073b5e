"""The words of emojibase-data, an npm package: CLDR's names and keywords of every emoji in many languages.

    package/LANG/data.json    [{"label": "elephant", "hexcode": "1F418", "emoji": "...", "tags": ["animal"],
                                "group": 3, "skins": [...]}, ...]

The package is read as it was downloaded, `emojibase-data-VERSION.tgz`, or as a folder that npm has unpacked.
"""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from diptych.archives import guarded
from diptych.documents import parse_json, shorten
from diptych.errors import ConfigError, FormatError

LARGEST = 1 << 28  # unpacked bytes; version 17 has 50 million
FIRST = "en"  # its names decide what belongs together
COMPONENT = 2  # group of skin tones and hair, which are no emoji of their own
HEXCODE = re.compile(r"[0-9A-F]{2,6}(-[0-9A-F]{2,6}){0,15}")

# Who is shown, and not what is shown: `woman running` and `man running` are one picture with other hair.
PERSONS = frozenset(
    {"man", "men", "woman", "women", "person", "people", "boy", "girl", "child", "baby", "old", "older"}
    | {"mr", "mrs", "mx", "santa"}
)
# The same in code points: persons of any age and sex, signs of sex, hair, the arrow, and what joins them.
WHO = frozenset(
    {"1F466", "1F467", "1F468", "1F469", "1F474", "1F475", "1F476", "1F9D1", "1F9D2", "1F9D3"}
    | {"2640", "2642", "1F9B0", "1F9B1", "1F9B2", "1F9B3", "27A1", "200D", "FE0F"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One emoji.

    Args:
        key: its code points in hexadecimal digits, joined by `-`.
        text: the emoji as a string.
        names: its name by language.
        tags: its keywords by language.
    """

    key: str
    text: str
    names: Mapping[str, str]
    tags: Mapping[str, tuple[str, ...]]


def read_emojibase(path: Path | None) -> list[Word]:
    """Read all emoji but their variants of skin, in the order of the package.

    Args:
        path: `emojibase-data-VERSION.tgz`, or the unpacked folder.

    Raises:
        ConfigError: there is no such file or folder.
        FormatError: it is another archive, damaged, or has no English words; names the part of it.
    """
    if path is None or not path.exists():
        raise ConfigError(
            f"{path or 'emojibase-data'} is not there; expected the words of the emoji. Get them with "
            "`diptych fetch emojibase`, and give the file with --emojibase."
        )
    found = {lang: _records(content, f"{path}: {lang}") for lang, content in _contents(path)}
    if FIRST not in found:
        raise FormatError(f"{path}: has no {FIRST}/data.json; expected the npm package emojibase-data.")
    langs = [FIRST, *sorted(found.keys() - {FIRST})]
    # An emoji that a language lacks has no caption there, so it is left out everywhere.
    return [
        Word(
            key=key,
            text=first["emoji"],
            names={lang: found[lang][key]["label"] for lang in langs},
            tags={lang: tuple(found[lang][key]["tags"]) for lang in langs},
        )
        for key, first in found[FIRST].items()
        if all(key in found[lang] for lang in langs)
    ]


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The content of every `LANG/data.json`."""
    if path.is_dir():
        for place in sorted(path.glob("*/data.json")):
            with guarded(place, "a file of emojibase-data", named=True), open(place, "rb") as stream:
                if len(content := stream.read(LARGEST + 1)) > LARGEST:
                    raise FormatError(f"has more than {LARGEST:,} bytes.")
            yield place.parent.name, content
        return
    with guarded(path, "the npm package emojibase-data", named=True):
        with gzip.open(path) as stream:
            # Unpacked in memory with a limit: heads of a TAR may claim any size.
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise FormatError(f"unpacks to more than {LARGEST:,} bytes.")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isfile() and name.name == "data.json" and len(name.parts) == 3:
                    file = tar.extractfile(member)
                    assert file is not None, "it is a file"
                    yield name.parts[1], file.read()


def _records(content: bytes, where: str) -> dict[str, dict[str, Any]]:
    """The records of one language by hexcode, without components."""
    values = parse_json(content, where=where)
    if not isinstance(values, list):
        raise FormatError(f"{where}: got {shorten(values)}; expected a list of emoji.")
    found: dict[str, dict[str, Any]] = {}
    for number, value in enumerate(values):
        one: dict[str, Any] = value if isinstance(value, dict) else {}
        key, label, text = (one.get(name) for name in ("hexcode", "label", "emoji"))
        # Some in British English and Mexican Spanish have none.
        tags = one.setdefault("tags", [])
        # Those without a group are no emoji but parts of flags.
        if isinstance(value, dict) and one.get("group") in (None, COMPONENT):
            continue
        texts = [label, text, *tags] if isinstance(tags, list) else [None]
        # A hexcode becomes the name of a file.
        good = isinstance(key, str) and HEXCODE.fullmatch(key) and key not in found
        if not good or not all(isinstance(part, str) and part.strip() for part in texts):
            raise FormatError(
                f"{where}: record {number} is {shorten(value)}; expected hexcode, label, emoji and tags."
            )
        found[str(key)] = one
    return found


def related(words: list[Word]) -> list[list[int]]:
    """Places of emoji that belong together, because they differ by the person or the direction shown.

    A model could recognize one from the other, so they may not be divided between training and test.
    """
    groups: dict[object, list[int]] = {}
    for place, word in enumerate(words):
        mine = [place]
        keys = ("name", _act(word.names[FIRST])), ("points", _points(word.key))
        for group in {id(groups[key]): groups[key] for key in keys if key in groups}.values():
            mine = [*group, *mine]
        # Keys of all members point to the one list, so that a later emoji joins all of them.
        for other in mine:
            for key in (("name", _act(words[other].names[FIRST])), ("points", _points(words[other].key))):
                groups[key] = mine
    return [sorted(group) for group in {id(group): group for group in groups.values()}.values()]


def _act(name: str) -> str:
    """The name without person and direction: `woman running: facing right` is `running`."""
    name = name.lower()
    # Behind the colon of `kiss: man, man` is who kisses; behind that of a flag, which flag it is.
    if not name.startswith(("flag:", "keycap:")):
        name = name.partition(":")[0]
    words = re.findall(r"[^\s.,]+", name)
    return " ".join(word for word in words if word not in PERSONS)


def _points(key: str) -> str:
    return "-".join(point for point in key.split("-") if point not in WHO)
