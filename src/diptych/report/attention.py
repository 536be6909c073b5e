"""A page that shows attention maps: one HTML file with everything inside, which needs no network."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from diptych.errors import ConfigError
from diptych.explain import ExampleMaps, MapLayer, PairMaps, grouped
from diptych.files import atomic_file
from diptych.report.heads import head_figure, heads_figure
from diptych.report.memes import read_picture
from diptych.report.page import drawable
from diptych.report.views import NAMES, VIEWS, blocks, first_view, strongest

QUALITY = 85  # of the JPEG pictures on the page


def attention_page(
    examples: Sequence[ExampleMaps],
    path: Path | str,
    *,
    title: str,
    layer: int | None = None,
    head: int | None = None,
) -> list[Path]:
    """Write the page, and two PNG pictures per pair: the maps of all heads, and one head in detail.

    Of long texts and many regions, the page shows those that `diptych.explain.grouped` keeps.

    Args:
        path: the HTML file. The pictures are beside it, for example `why-heads.png` and `why-head.png`.
        layer: number of the layer in detail, from 1, among those of the first view; by default the layer and
            the head with the largest share of their attention between text and picture.
        head: number of the head, from 1.

    Returns:
        The files: first the page, then the pictures.

    Raises:
        ConfigError: there is nothing to show, or the layer or the head does not exist.
    """
    path, pairs = Path(path), []
    entries = list(_entries(examples))
    places = picture_places(path, len(entries))
    for number, (label, example, pair) in enumerate(entries):
        view = first_view(pair)
        shown = blocks(pair, view)
        if not shown:
            raise ConfigError(f"{label}: the model has no attention map with a position that could be shown.")
        at, which = strongest(shown)
        # People count layers and heads from 1.
        at = _number("--layer", layer, len(shown), at)
        which = _number("--head", head, len(shown[at].weights), which)
        # Two places per pair, in the order of `picture_places`.
        for draw, place in zip((heads_figure, head_figure), places[2 * number : 2 * number + 2], strict=True):
            draw(pair, place, view=view, chosen=(at, which), title=f"{title}: {label}")
        chosen = {"view": view, "layer": shown[at].number, "head": which}
        pairs.append({"label": label, "answer": example.answer, **chosen, **_content(pair)})
    data = {"sides": VIEWS, "names": NAMES, "pairs": pairs}
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(_html(title, data, places))
    return [path, *places]


def picture_places(path: Path, count: int) -> list[Path]:
    """Return the files that `attention_page` writes beside the page for so many pairs."""
    numbers = [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]
    return [
        path.with_name(f"{path.stem}{number}-{ending}.png")
        for number in numbers
        for ending in ("heads", "head")
    ]


def _entries(examples: Sequence[ExampleMaps]) -> Iterator[tuple[str, ExampleMaps, PairMaps]]:
    for example in examples:
        for number, pair in enumerate(example.pairs, 1):
            label = example.id if len(example.pairs) == 1 else f"{example.id}, pair {number}"
            yield label, example, grouped(pair)


def _number(option: str, given: int | None, count: int, default: int) -> int:
    if given is None:
        return default
    if not 1 <= given <= count:
        raise ConfigError(f"{option} is {given}; expected a number from 1 to {count}.")
    return given - 1


def _content(pair: PairMaps) -> dict[str, Any]:
    return {
        "text": pair.text,
        "views": [view for view in NAMES if blocks(pair, view)],
        "pictures": [_picture(path) for path in pair.images],
        "places": [asdict(place) for place in pair.places],
        "layers": [_layer(layer) for layer in pair.layers],
    }


def _layer(layer: MapLayer) -> dict[str, Any]:
    return {
        "title": layer.title,
        "name": layer.name,
        "queries": layer.queries,
        "keys": layer.keys,
        "heads": len(layer.weights),
        "data": _packed(layer.weights),
    }


def _packed(weights: Float[ndarray, "H Q K"]) -> str:
    """One byte per weight; the square root keeps small weights apart, which most are."""
    levels = np.sqrt(weights.clip(0, 1)) * 255
    return base64.b64encode(levels.round().astype(np.uint8).tobytes()).decode()


def _picture(path: Path | None) -> dict[str, str]:
    pixels = read_picture(path)
    if isinstance(pixels, str):
        return {"note": pixels}
    file = io.BytesIO()
    # Encoded anew, so that nothing but pixels of a stranger's file gets into the page.
    Image.fromarray(pixels).save(file, format="JPEG", quality=QUALITY)
    return {"src": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"}


def _html(title: str, data: dict[str, Any], pictures: Sequence[Path]) -> str:
    folder = files("diptych.report")
    template, style, script = (
        (folder / f"attention.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    values = {
        "title": escape(drawable(title)),
        "policy": policy,
        "style": style,
        "script": script,
        "data": _json(data),
        "pictures": "".join(_embedded(path) for path in pictures),
    }
    # One pass, so that braces in what is filled in stay as they are.
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)


def _digest(text: str) -> str:
    """For the page's security policy: a browser runs only what has this digest."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(data: dict[str, Any]) -> str:
    # `<` could end the script element, whatever is inside of JSON strings.
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _embedded(path: Path) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" alt="">'
