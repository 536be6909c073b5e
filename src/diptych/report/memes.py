"""A page of memes with the scores of every model, most confident mistakes first."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from diptych.errors import ConfigError, nearest
from diptych.images import picture_exists, picture_source
from diptych.report.page import Page
from diptych.report.style import INK, LINE, MUTED, RIGHT, WRONG, drawing

# Lengths in inches.
MARGIN, GAP, PAD = 0.35, 0.24, 0.12
CARD, HEAD, PICTURE, TEXT, BAR = 3.1, 0.36, 2.3, 0.18, 0.21
TITLE, HEADING = 0.9, 0.38
TEXT_LINES = 3
PIXELS = (900, 700)  # largest size of a picture on the page
CHECK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemeItem:
    """A meme with the scores of several models.

    Args:
        image: file of the picture. If it is None or cannot be read, a placeholder is drawn.
        target: name of the true class; None if unknown.
        scores: probability of the positive class in [0, 1], by model name.
    """

    image: Path | str | None
    text: str
    target: str | None
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Decides which scores are right; the page is sorted by the model `by`."""

    by: str
    positive: str
    threshold: float

    def is_right(self, card: MemeItem, model: str) -> bool | None:
        """Whether the decision of `model` is right; None if the target is unknown."""
        if card.target is None:
            return None
        return bool(card.scores[model] >= self.threshold) == (card.target == self.positive)

    def confidence(self, card: MemeItem) -> float:
        # The farther from the threshold, the surer the model was.
        return abs(card.scores[self.by] - self.threshold)


def meme_page(
    items: Sequence[MemeItem],
    path: Path | str,
    *,
    title: str,
    positive: str,
    columns: int = 4,
    by: str | None = None,
    threshold: float = 0.5,
    count: int = 16,
) -> None:
    """Draw the memes with the most confident wrong and right decisions as one PNG.

    Args:
        positive: name of the positive class.
        columns: largest number of memes per row.
        by: model that sorts the memes; None means the first model of the first item.
        threshold: smallest score that is decided positive.
        count: number of memes; half of them are wrong decisions, if there are enough.

    Raises:
        ConfigError: there are no memes, or one has no score of the model `by`.
    """
    if not items or not items[0].scores:
        raise ConfigError("there is nothing to draw; expected at least one meme with a score.")
    by = by or next(iter(items[0].scores))
    if lacking := [card for card in items if by not in card.scores]:
        names = tuple(lacking[0].scores)
        raise ConfigError(
            f"{len(lacking)} meme(s) have no score of {by!r}; expected one of {names}.{nearest(by, names)}"
        )
    judge = Judge(by=by, positive=positive, threshold=threshold)
    sections = list(_sections(items, judge, count=count, columns=columns))
    models = list(dict.fromkeys(name for card in items for name in card.scores))
    # Not wider than the memes need, but never so narrow that the title is cut.
    columns = min(columns, max(2, *(len(shown) for _, shown in sections)))
    row = HEAD + PICTURE + TEXT_LINES * TEXT + len(models) * BAR + 4 * PAD
    width = 2 * MARGIN + columns * (CARD + GAP) - GAP
    rows = sum(ceil(len(shown) / columns) for _, shown in sections)
    height = 2 * MARGIN - GAP + TITLE + len(sections) * HEADING + rows * (row + GAP)
    with drawing(path, width=width, height=height) as figure:
        page = Page(figure, width=width, height=height)
        top = height - MARGIN
        _draw_title(page, top, title, judge, width=width - 2 * MARGIN)
        top -= TITLE
        for heading, shown in sections:
            page.text(MARGIN, top - HEADING / 3, heading, size=12, bold=True)
            top -= HEADING
            for start in range(0, len(shown), columns):
                for place, card in enumerate(shown[start : start + columns]):
                    corner = MARGIN + place * (CARD + GAP), top
                    _draw_card(page, card, judge, models=models, corner=corner, height=row)
                top -= row + GAP


def _sections(
    items: Sequence[MemeItem], judge: Judge, *, count: int, columns: int
) -> Iterator[tuple[str, list[MemeItem]]]:
    """Yield each heading with its memes, most confident first."""
    ordered = sorted(items, key=judge.confidence, reverse=True)
    groups = {
        verdict: [card for card in ordered if judge.is_right(card, judge.by) is verdict]
        for verdict in (False, True, None)
    }
    # Half of the places, or more if there are not enough right decisions for the other half.
    wrong = min(len(groups[False]), max(count - len(groups[True]), count // 2))
    right = min(len(groups[True]), count - wrong)
    right -= right % columns if wrong and right > columns else 0  # full rows only
    shares = {False: wrong, True: right, None: min(len(groups[None]), count - wrong - right)}
    names = {False: f"{CROSS} Wrong", True: f"{CHECK} Right", None: "Without label"}
    for verdict, share in shares.items():
        if share:
            yield (
                f"{names[verdict]}: {share} of {len(groups[verdict])}, most confident first",
                groups[verdict][:share],
            )


def _draw_title(page: Page, top: float, title: str, judge: Judge, *, width: float) -> None:
    page.text(MARGIN, top - 0.14, page.fit(title, width, size=17, bold=True), size=17, bold=True)
    legend = (
        f"Bars: probability of {judge.positive}, with a line at the threshold {judge.threshold:g}. "
        f"{CHECK} right, {CROSS} wrong. Sorted by {judge.by}."
    )
    page.text(MARGIN, top - 0.5, page.fit(legend, width), color=MUTED)


def _draw_card(
    page: Page,
    card: MemeItem,
    judge: Judge,
    *,
    models: Sequence[str],
    corner: tuple[float, float],
    height: float,
) -> None:
    left, top = corner
    right = judge.is_right(card, judge.by)
    color, _ = _mark(right)
    page.frame(left, top - height, CARD, height, color=color, dashed=right is False)
    inner, width = left + PAD, CARD - 2 * PAD
    _draw_head(page, card, right, left=inner, middle=top - HEAD / 2 - 0.02, width=width)
    top -= HEAD
    page.rectangle(inner, top - PICTURE, width, PICTURE, color="#ececf1")
    pixels = read_picture(card.image)
    if isinstance(pixels, str):
        page.text(inner + width / 2, top - PICTURE / 2, pixels, color=MUTED, align="center")
    else:
        page.picture(pixels, inner, top - PICTURE, width, PICTURE)
    top -= PICTURE + PAD
    for number, line in enumerate(page.wrap(card.text, width, TEXT_LINES) or ["(no text)"]):
        page.text(inner, top - (number + 0.5) * TEXT, line, color=INK if card.text.strip() else MUTED)
    top -= TEXT_LINES * TEXT + PAD
    for number, model in enumerate(models):
        if model in card.scores:
            middle = top - (number + 0.5) * BAR
            _draw_bar(page, card, judge, model, left=inner, middle=middle, width=width)


def _draw_head(
    page: Page, card: MemeItem, right: bool | None, *, left: float, middle: float, width: float
) -> None:
    color, sign = _mark(right)
    word = {True: "right", False: "wrong", None: "no label"}[right]
    page.text(left, middle, f"{sign} {word}".strip(), size=10, bold=True, color=color)
    if card.target is not None:
        truth = page.fit(f"is {card.target}", width - 0.9)
        page.text(left + width, middle, truth, color=INK, align="right")


def _draw_bar(
    page: Page, card: MemeItem, judge: Judge, model: str, *, left: float, middle: float, width: float
) -> None:
    """Draw a model's name, a bar from 0 to 1, the score, and whether the model is right."""
    score = card.scores[model]
    name, number, sign_width = 0.4 * width, 0.34, 0.16
    color, sign = _mark(judge.is_right(card, model))
    page.text(left, middle, page.fit(model, name - 0.08, size=8), size=8)
    start, length, thickness = left + name, width - name - number - sign_width, 0.45 * BAR
    page.rectangle(start, middle - thickness / 2, length, thickness, color=LINE)
    page.rectangle(start, middle - thickness / 2, length * min(max(score, 0.0), 1.0), thickness, color=color)
    page.rectangle(start + length * judge.threshold - 0.006, middle - BAR * 0.4, 0.012, BAR * 0.8, color=INK)
    page.text(left + width - sign_width, middle, f"{score:.2f}", size=8, align="right")
    page.text(left + width, middle, sign, size=9, bold=True, color=color, align="right")


def _mark(right: bool | None) -> tuple[str, str]:
    return {True: (RIGHT, CHECK), False: (WRONG, CROSS), None: (MUTED, "")}[right]


def read_picture(path: Path | str | None) -> UInt8[ndarray, "h w 3"] | str:
    """Read a picture at page size, or return the reason why that failed."""
    if path is None:
        return "no picture"
    if not picture_exists(path):
        return "picture not found"
    try:
        with warnings.catch_warnings():
            # A bomb must fail instead of filling the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(picture_source(path)) as image:
                image.draft("RGB", PIXELS)  # JPEG is decoded at a fraction of its size
                # Before rotating and converting, which then work on a small picture.
                image.thumbnail(PIXELS)
                upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "picture too large"
    except Exception:  # decoders raise many kinds of errors, and a placeholder is better than no page
        return "picture unreadable"
    # Transparent pictures are shown on white.
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))
