"""A small package of emojibase-data and a font, so that the world of emoji is tested without either."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

FACES = range(0x1F600, 0x1F600 + 48)  # DejaVu Sans draws them


def record(code: int, name: str, **more: Any) -> dict[str, Any]:
    return {"hexcode": f"{code:X}", "emoji": chr(code), "label": name, "tags": [name[:4]], "group": 0, **more}


def faces(name: str) -> list[dict[str, Any]]:
    return [record(code, f"{name} {number}") for number, code in enumerate(FACES)]


def packed(path: Path, languages: Mapping[str, Sequence[Any]]) -> Path:
    """Write an npm package with a `data.json` of each language."""
    with tarfile.open(path, "w:gz") as tar:
        for lang, records in languages.items():
            content = json.dumps(records).encode()
            member = tarfile.TarInfo(f"package/{lang}/data.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def emoji_sources(folder: Path) -> dict[str, Path]:
    """The files that `fabricate` takes."""
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return {
        "emojibase": packed(folder / "emojibase.tgz", {"en": faces("face"), "de": faces("Gesicht")}),
        "font": font,
    }
