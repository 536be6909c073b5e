"""Renders scenes as pictures and memes, and simulates a detector on them."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageFont

from diptych.types import Regions
from diptych.world.scene import COLORS, HORIZON, KINDS, PATTERNS, Scene, Thing
from diptych.world.shapes import PAINT, SHAPES, Color

CLASSES = tuple(KINDS)
FEATURE_DIM = 128
FEATURE_NOISE = 0.5
SCALE = 2  # pictures are painted larger by this factor and then reduced, for smooth edges
INK = PAINT["ink"]

# Colors of the upper sky, the sky at the horizon, and the ground: pale, so that all things stand out.
BACKDROPS: tuple[tuple[Color, Color, Color], ...] = (
    ((206, 224, 240), (242, 246, 248), (214, 208, 178)),
    ((244, 230, 214), (250, 244, 236), (196, 206, 204)),
    ((220, 216, 234), (246, 240, 242), (206, 204, 186)),
    ((214, 232, 226), (244, 246, 240), (214, 208, 190)),
    ((228, 230, 234), (246, 246, 246), (208, 204, 196)),
    ((240, 224, 228), (248, 242, 240), (200, 208, 200)),
)


def draw_scene(scene: Scene) -> Image.Image:
    """Draw the scene as a small RGB picture."""
    width, height = (SCALE * side for side in scene.size)
    sky, haze, ground = BACKDROPS[scene.backdrop]
    horizon = round(HORIZON * height)
    image = Image.new("RGB", (width, height), ground)
    image.paste(_gradient(sky, haze, (width, horizon)), (0, 0))
    hill = ImageDraw.Draw(image)
    # Two flat hills, so that the horizon is no straight line.
    hill.ellipse((-0.4 * width, horizon - 0.06 * height, 0.7 * width, horizon + 0.4 * height), fill=ground)
    hill.ellipse((0.4 * width, horizon - 0.03 * height, 1.5 * width, horizon + 0.4 * height), fill=ground)
    # Before the things, so that it lies behind all of them.
    _glow(image, scene.subject)
    for thing in scene.things:
        _paint(image, thing)
    return image.reduce(SCALE)


def draw_meme(
    image: Image.Image, top: str, bottom: str, *, generator: Generator | None = None
) -> Image.Image:
    """Copy the picture and print white capitals with black outlines along its upper and lower edges.

    Each text takes at most a seventh of the height. Text that does not fit in the smallest size is truncated.

    Args:
        generator: varies the width and size of the text; None uses all of the width.
    """
    # Two memes share a picture.
    meme = image.copy()
    for text, upper in ((top, True), (bottom, False)):
        share = 0.95 if generator is None else generator.uniform(0.6, 0.95)
        lines, size = _fit(text.upper(), width=share * image.width, height=0.14 * image.height)
        letters, edge = _letters(lines, size, image.width)
        y = round(0.015 * image.height if upper else 0.985 * image.height - letters.height)
        meme.paste("black", (0, y), edge)
        meme.paste("white", (0, y), letters)
    return meme


def detect(scene: Scene, generator: Generator) -> Regions:
    """Simulate a detector: noisy features and boxes, and a few false detections, best score first.

    A feature is the sum of fixed vectors for class, color and pattern, plus noise. Like a real detector, it
    finds the subject several times, misses some props, and sometimes confuses class names.
    """
    detected = [thing for thing in scene.things if thing is scene.subject or generator.random() > 0.08]
    # Real detectors find large things several times.
    detected += [scene.subject] * int(generator.integers(1, 4))
    doubtful = int(generator.integers(1, 3))
    count = len(detected) + doubtful
    kinds = np.array([CLASSES.index(thing.kind) for thing in detected] + [0] * doubtful)
    colors = np.array([COLORS.index(thing.color) for thing in detected] + [0] * doubtful)
    # False detections have a random class and color; the zeros above only hold their places.
    kinds[len(detected) :] = generator.integers(len(CLASSES), size=doubtful)
    colors[len(detected) :] = generator.integers(len(COLORS), size=doubtful)
    # False detections show less of a class, and score lower below: that is how models can tell them.
    clarity = np.where(np.arange(count) < len(detected), 1.0, 0.4)
    tables = _tables()
    features = clarity[:, None] * (tables["kind"][kinds] + tables["color"][colors])
    # Noise per detection, so that two detections of one thing differ.
    features += FEATURE_NOISE * generator.standard_normal((count, FEATURE_DIM))
    features[: len(detected)] += tables["pattern"][[PATTERNS.index(thing.pattern) for thing in detected]]
    scores = generator.uniform(0.55, 0.99, count) * np.where(clarity < 1, 0.35, 1.0)
    # Best first, as `Regions` promises.
    order = np.argsort(-scores, kind="stable")
    return Regions(
        features=features[order].astype(np.float16),
        boxes=_boxes(scene, detected, doubtful, generator)[order],
        size=scene.size,
        labels=_misread(kinds, len(CLASSES), generator)[order],
        scores=scores[order].astype(np.float32),
        attributes=_misread(colors, len(COLORS), generator)[order],
        attribute_scores=generator.uniform(0.4, 0.95, count).astype(np.float32),
    )


def observe(scene: Scene, generator: Generator) -> Regions:
    """Regions of given boxes: every thing of a scene, in its order, with its box and a noisy feature."""
    things, tables = scene.things, _tables()
    kinds = np.array([CLASSES.index(thing.kind) for thing in things])
    colors = np.array([COLORS.index(thing.color) for thing in things])
    patterns = np.array([PATTERNS.index(thing.pattern) for thing in things])
    features = tables["kind"][kinds] + tables["color"][colors] + tables["pattern"][patterns]
    features += FEATURE_NOISE * generator.standard_normal(features.shape)
    width, height = scene.size
    boxes = np.array([thing.box for thing in things], np.float32).clip(0, [width, height, width, height])
    ones = np.ones(len(things), np.float32)  # who gives boxes is sure of them
    return Regions(
        features=features.astype(np.float16),
        boxes=boxes.astype(np.float32),
        size=scene.size,
        labels=kinds,
        scores=ones,
        attributes=colors,
        attribute_scores=ones,
    )


def _gradient(above: Color, below: Color, size: tuple[int, int]) -> Image.Image:
    column = np.linspace(above, below, size[1]).round().astype(np.uint8)
    return Image.fromarray(np.repeat(column[:, None], size[0], axis=1))


def _mix(one: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _glow(image: Image.Image, thing: Thing) -> None:
    """Paint a disc behind a thing, in a pale tint of its color."""
    x, y = (SCALE * side for side in thing.center)
    radius = 0.62 * SCALE * max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
    pale = _mix(PAINT[thing.color], (255, 255, 255), 0.55)
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=pale)


def _paint(image: Image.Image, thing: Thing) -> None:
    draw = ImageDraw.Draw(image)
    x1, y1, x2, y2 = (SCALE * side for side in thing.box)
    for shape, paint, numbers in SHAPES[thing.kind]:
        xs = [x1 + (x2 - x1) * number for number in numbers[::2]]  # x and y alternate
        ys = [y1 + (y2 - y1) * number for number in numbers[1::2]]
        points = [value for point in zip(xs, ys, strict=True) for value in point]
        _draw(draw, shape, points, PAINT[thing.color if paint == "body" else paint])
        # An arc is too thin for a pattern.
        if paint == "body" and thing.pattern != "plain" and shape != "arc":
            _texture(image, thing, shape, points)


def _draw(draw: ImageDraw.ImageDraw, shape: str, points: list[float], fill: Color) -> None:
    edge = max(2, draw.im.size[0] // 180)
    match shape:
        case "ellipse":
            draw.ellipse(points, fill=fill, outline=INK, width=edge)
        case "box":
            draw.rectangle(points, fill=fill, outline=INK, width=edge)
        case "polygon":
            draw.polygon(points, fill=fill, outline=INK, width=edge)
        case "chord":
            draw.chord(points, 180, 360, fill=fill, outline=INK, width=edge)
        case "line":
            draw.line(points, fill=fill, width=edge + 1, joint="curve")
        case "ring":
            draw.ellipse(points, outline=fill, width=edge)
        case "arc":
            # A thick dark loop with a thinner colored one inside of it.
            draw.ellipse(points, outline=INK, width=5 * edge)
            x1, y1, x2, y2 = points
            draw.ellipse((x1 + edge, y1 + edge, x2 - edge, y2 - edge), outline=fill, width=3 * edge)


def _texture(image: Image.Image, thing: Thing, shape: str, points: list[float]) -> None:
    """Paint light stripes or dots over an already painted shape."""
    left, top = int(min(points[::2])), int(min(points[1::2]))
    size = int(max(points[::2])) - left + 1, int(max(points[1::2])) - top + 1
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    inside = [value - (left, top)[i % 2] for i, value in enumerate(points)]
    figures: dict[str, Callable[[], None]] = {
        "ellipse": lambda: draw.ellipse(inside, fill=255),
        "box": lambda: draw.rectangle(inside, fill=255),
        "polygon": lambda: draw.polygon(inside, fill=255),
        "chord": lambda: draw.chord(inside, 180, 360, fill=255),
    }
    figures[shape]()
    # Shrink the mask by intersecting it with shifted copies, so that the texture leaves the outline free.
    for _ in range(2):
        mask = ImageChops.darker(mask, ImageChops.offset(mask, 2, 2))
        mask = ImageChops.darker(mask, ImageChops.offset(mask, -4, -4))
        mask = ImageChops.offset(mask, 2, 2)
    # The texture shows only where both masks are set: inside of the shape and on the pattern.
    tile = _tile(thing.pattern, size)
    image.paste(_mix(PAINT[thing.color], (255, 255, 255), 0.45), (left, top), ImageChops.darker(mask, tile))


def _tile(pattern: str, size: tuple[int, int]) -> Image.Image:
    tile = Image.new("L", size)
    draw = ImageDraw.Draw(tile)
    if pattern == "striped":
        for x in range(0, size[0], 24):
            draw.rectangle((x, 0, x + 8, size[1]), fill=255)
    else:
        for row, y in enumerate(range(8, size[1], 18)):
            for x in range(8 + 11 * (row % 2), size[0], 22):
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=255)
    return tile


def _letters(lines: list[str], size: int, width: int) -> tuple[Image.Image, Image.Image]:
    """Masks of centered lines and of their thickened outlines (six times as fast as Pillow's stroke)."""
    step = max(1, round(size / 9))
    letters = Image.new("L", (width, len(lines) * _line_height(size) + 2 * step))
    draw = ImageDraw.Draw(letters)
    for number, line in enumerate(lines):
        place = width / 2, step + number * _line_height(size)  # room for the outline above
        draw.text(place, line, font=_font(size), fill=255, anchor="ma")
    edge = letters
    # Each shift starts from the result of the one before, so corners become thick too.
    for shift in ((step, 0), (-step, 0), (0, step), (0, -step)):
        edge = ImageChops.lighter(edge, ImageChops.offset(edge, *shift))
    return letters, edge


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@cache
def _length(word: str, size: int) -> float:
    return _font(size).getlength(word)


def _line_height(size: int) -> int:
    return round(1.1 * size)


def _fit(text: str, *, width: float, height: float) -> tuple[list[str], int]:
    """Wrap the text, and find the largest font size at which the lines fit."""
    largest, smallest = max(9, round(0.45 * height)), max(8, round(0.2 * height))
    words = text[:400].split()  # longer texts never fit
    lines: list[str] = []
    # From the largest down: the first size that fits is the answer.
    for size in range(largest, smallest - 1, -1):
        lines = _wrap(words, size, width)
        if len(lines) * _line_height(size) <= height:
            return lines, size
    room = max(1, int(height // _line_height(smallest)))
    return [*lines[: room - 1], f"{lines[room - 1][:-3]}..."], smallest


def _wrap(words: list[str], size: int, width: float) -> list[str]:
    lines: list[str] = []
    room = 0.0
    for word in words:
        needed = _length(word, size)
        if needed > width:  # truncate a word that is wider than the picture
            word, needed = word[: int(len(word) * width / needed)], width
        gap = _length(" ", size)
        if lines and needed + gap <= room:
            lines[-1] += f" {word}"
            room -= needed + gap
        else:
            lines.append(word)
            room = width - needed
    return lines


@cache
def _tables() -> dict[str, ndarray]:
    """Fixed feature vectors. They belong to the detector, so they do not depend on the seed of a data set.

    Similar colors have similar vectors.
    """
    generator = np.random.default_rng(128)
    sizes = {"kind": len(CLASSES), "color": len(COLORS), "pattern": len(PATTERNS), "paint": 3}
    tables = {name: generator.standard_normal((size, FEATURE_DIM)) for name, size in sizes.items()}
    paints = np.array([PAINT[color] for color in COLORS]) / 128.0 - 1.0
    tables["color"] += paints @ tables["paint"]
    tables["pattern"] *= 0.5  # harder to see than class and color
    return tables


def _misread(names: ndarray, count: int, generator: Generator) -> ndarray:
    # Names are drawn for all places, so that the number of draws does not depend on the result.
    wrong = generator.random(len(names)) < 0.05
    return np.where(wrong, generator.integers(count, size=len(names)), names).astype(np.int64)


def _boxes(scene: Scene, detected: list[Thing], doubtful: int, generator: Generator) -> ndarray:
    width, height = scene.size
    true = np.array([thing.box for thing in detected], dtype=float)
    extent = np.tile(true[:, 2:] - true[:, :2], 2)
    # Errors grow with the box, as those of detectors do.
    near = true + 0.03 * extent * generator.standard_normal(true.shape)
    corner = generator.uniform(0, 0.7, (doubtful, 2)) * (width, height)
    stray = np.hstack([corner, corner + generator.uniform(0.08, 0.28, (doubtful, 2)) * (width, height)])
    limits = np.array([width, height, width, height])
    # Inside of the picture, as stores require.
    return np.clip(np.vstack([near, stray]), 0, limits).astype(np.float32)
