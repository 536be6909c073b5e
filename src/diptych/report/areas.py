"""The picture of a decision with the areas that counted, as SVG in an HTML page."""

import base64
import io
from html import escape
from string import ascii_uppercase

import numpy as np
from PIL import Image

from diptych.explain import Evidence
from diptych.report.memes import read_picture

MOST = 8  # areas that are drawn; more hide the picture
QUALITY = 85  # of the JPEG picture on the page
VIEWS = (("counted", "what counted"), ("looked", "where it looked"), ("bare", "picture alone"))


def letters(why: Evidence) -> dict[int, str]:
    """Return the letters of the areas that are drawn, by number of the player; A counts most."""
    drawn = [n for n in why.ranked(text=False) if why.players[n].boxes][:MOST]
    return dict(zip(drawn, ascii_uppercase, strict=False))


def picture_figure(why: Evidence) -> str:
    """Return every picture with its areas; radio buttons switch between what counted and where it looked."""
    views = "".join(
        f'<input type="radio" name="view" id="{key}"{" checked" * (key == "counted")}>'
        f'<label for="{key}">{name}</label>'
        for key, name in VIEWS
        if key != "looked" or why.relevance is not None
    )
    controls = f'{views}<input type="checkbox" id="blur"><label for="blur">blur</label>'
    figures = "".join(_figure(why, number) for number in range(len(why.images)))
    if not figures:
        return "<p>no picture</p>"
    note = (
        "Areas are what the detector found; A counts most. Solid and +: for the answer. Dashed and "
        "\N{MINUS SIGN}: against it."
        if letters(why)
        else "The model reads the picture as a whole, so no area of it was weighed."
    )
    return f"{controls}{figures}<figcaption>{note}</figcaption>"


def _figure(why: Evidence, picture: int) -> str:
    pixels = read_picture(why.images[picture])
    if isinstance(pixels, str):
        return f"<figure><p>{escape(pixels)}</p></figure>"
    file = io.BytesIO()
    # Encoded anew, so that nothing but pixels of a stranger's file gets into the page.
    Image.fromarray(pixels).save(file, format="JPEG", quality=QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    names = letters(why)
    said = ", ".join(f"{names[n]} {why.contributions.values[n]:+.2f}" for n in names) or "none"
    marks = [
        _area(why, n, rank, kind, (width, height), label)
        for kind in ("counted", "looked")
        for rank, (n, label) in enumerate(_drawn(why, kind, names))
        if why.players[n].picture == picture
    ]
    shapes = "".join(reversed(marks))  # the most important is painted last, over the others
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="picture; areas: {escape(said)}">'
        f'<image href="data:image/jpeg;base64,{data}" {size}/>{shapes}</svg></figure>'
    )


def _drawn(why: Evidence, kind: str, names: dict[int, str]) -> list[tuple[int, str]]:
    """The areas of a view, the most important first, with their labels."""
    if kind == "counted":
        values = why.contributions.values
        return [(n, f"{name} {values[n]:+.2f}".replace("-", "\N{MINUS SIGN}")) for n, name in names.items()]
    if why.relevance is None:
        return []
    order = [n for n in np.argsort(-why.relevance, kind="stable").tolist() if why.players[n].boxes]
    return [(n, f"{rank}.") for rank, n in enumerate(order[:MOST], 1)]


def _area(why: Evidence, number: int, rank: int, kind: str, size: tuple[int, int], label: str) -> str:
    """The boxes of a group: the first one with its label, the others thin."""
    sign = "for" if why.contributions.values[number] > 0 else "against"
    unit = max(size) / 300
    thick = max(3.0 - 0.35 * rank, 0.8) * unit
    shapes = []
    for at, box in enumerate(why.players[number].boxes):
        x1, y1, x2, y2 = (value * side for value, side in zip(box, size * 2, strict=True))
        where = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
        line = thick if at == 0 else 0.5 * unit
        # A white line below keeps the colored one visible on every picture.
        shapes.append(f'<rect class="halo" {where} stroke-width="{line + 1.2 * unit:.1f}"/>' * (at == 0))
        shapes.append(f'<rect class="box" {where} stroke-width="{line:.1f}"/>')
    x1, y1 = (value * side for value, side in zip(why.players[number].boxes[0], size, strict=False))
    font, wide = 9 * unit, (len(label) * 5.6 + 4) * unit
    x1, y1 = min(x1, size[0] - wide), min(y1, size[1] - 1.3 * font)
    tag = (
        f'<rect class="tag" x="{x1:.1f}" y="{y1:.1f}" width="{wide:.1f}" height="{1.3 * font:.1f}"/>'
        f'<text x="{x1 + 2 * unit:.1f}" y="{y1 + font:.1f}" font-size="{font:.1f}">{escape(label)}</text>'
    )
    return f'<g class="{kind} {sign}">{"".join(shapes)}{tag}</g>'
