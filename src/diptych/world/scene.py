"""Scenes: one big subject among small props, with known colors, patterns, boxes and relations.

The subject is the largest thing and has a warm or a cool color; memes are about that family of colors.
Everything is drawn from one generator, so a seed determines a scene.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

Family = Literal["warm", "cool"]
Box = tuple[int, int, int, int]

WARM = ("ruby", "gold", "orange")
COOL = ("blue", "teal", "purple")
COLORS = (*WARM, *COOL, "green", "pink", "brown", "white", "gray", "black")
PATTERNS = ("plain", "striped", "dotted")
SIZES = ("small", "medium", "big")
CANVASES = ((320, 240), (280, 280), (240, 300))
BACKDROPS = 6
HORIZON = 0.64  # height of the horizon as a share of the canvas


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of thing.

    Args:
        aspect: width / height.
        place: where props of this kind can be.
        colors: possible colors of props of this kind.
    """

    aspect: float
    place: Literal["ground", "sky"] = "ground"
    colors: tuple[str, ...] = COLORS


SUBJECTS = {
    "cat": Kind(aspect=0.85),
    "fish": Kind(aspect=1.4),
    "bird": Kind(aspect=1.1),
    "car": Kind(aspect=1.6),
    "house": Kind(aspect=1.0),
    "robot": Kind(aspect=0.8),
    "snail": Kind(aspect=1.3),
    "teapot": Kind(aspect=1.35),
    "balloon": Kind(aspect=0.8, place="sky"),
    "umbrella": Kind(aspect=1.05),
    "mushroom": Kind(aspect=0.95),
    "boat": Kind(aspect=1.15),
}
PROPS = {
    "tree": Kind(aspect=0.7, colors=("green", "pink", "brown")),
    "cloud": Kind(aspect=1.8, place="sky", colors=("white", "gray")),
    "ball": Kind(aspect=1.0),
    "crate": Kind(aspect=1.0, colors=("brown", "gray", "green")),
    "flower": Kind(aspect=0.6),
    "rock": Kind(aspect=1.4, colors=("gray", "brown", "black", "white")),
    "kite": Kind(aspect=0.75, place="sky"),
    "lamp": Kind(aspect=0.4, colors=("black", "gray", "brown", "green")),
    "bush": Kind(aspect=1.5, colors=("green", "brown", "pink")),
}
KINDS = SUBJECTS | PROPS
STANDS_ON = frozenset({"ball", "crate", "flower", "lamp"})  # props that may stand on other things
CARRIES = frozenset({"crate", "rock", "car", "house", "robot"})  # things that others may stand on


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One object; `box` is x1 y1 x2 y2 in pixels."""

    kind: str
    color: str
    pattern: str
    size: str
    box: Box

    @property
    def area(self) -> int:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)

    @property
    def center(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A relation of two things, by index: `scene.things[left]` is `name` `scene.things[right]`."""

    left: int
    name: Literal["on", "left of", "above", "bigger than"]
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scene.

    Args:
        things: things in painting order; the subject is last.
        size: width and height in pixels.
        backdrop: index of the colors of sky and ground.
    """

    things: tuple[Thing, ...]
    size: tuple[int, int]
    backdrop: int

    @property
    def subject(self) -> Thing:
        # By area and not by place, so that the rule of the memes can be seen in the boxes.
        return max(self.things, key=lambda thing: thing.area)

    @property
    def family(self) -> Family:
        """Whether the subject has a warm or a cool color."""
        return "warm" if self.subject.color in WARM else "cool"

    def relations(self) -> Iterator[Relation]:
        """Yield all relations between two things that their boxes show clearly."""
        for i, one in enumerate(self.things):
            for j, other in enumerate(self.things):
                if i == j:
                    continue
                if _stands_on(one, other):
                    yield Relation(left=i, name="on", right=j)
                # Neither box may reach the center of the other: then the relation is clear.
                if one.box[2] <= other.center[0] and other.box[0] >= one.center[0]:
                    yield Relation(left=i, name="left of", right=j)
                if one.box[3] <= other.center[1] and other.box[1] >= one.center[1]:
                    yield Relation(left=i, name="above", right=j)
                # Clearly bigger, also in boxes with noise.
                if one.area > 2 * other.area:
                    yield Relation(left=i, name="bigger than", right=j)


def new_scene(generator: Generator, family: Family) -> Scene:
    """Draw a scene whose subject has a color of `family`; nothing else depends on the family."""
    # Of several shapes, so that boxes must be scaled by width and height.
    width, height = CANVASES[generator.integers(len(CANVASES))]
    backdrop = int(generator.integers(BACKDROPS))
    subject = _subject(generator, family, (width, height))
    # The subject first, so that it always has room.
    placed = [subject]
    for _ in range(generator.integers(2, 6)):
        if (prop := _prop(generator, placed, (width, height))) is not None:
            placed.append(prop)
    # Painting order: things lower on the canvas are nearer, so they are painted later.
    behind = sorted(placed[1:], key=lambda thing: thing.box[3])
    # The subject in front of all, so that nothing hides its color.
    return Scene(things=(*behind, subject), size=(width, height), backdrop=backdrop)


def _choose(generator: Generator, options: tuple[str, ...]) -> str:
    return options[int(generator.integers(len(options)))]


def _subject(generator: Generator, family: Family, canvas: tuple[int, int]) -> Thing:
    width, height = canvas
    kind = _choose(generator, tuple(SUBJECTS))
    tall = generator.uniform(0.62, 0.7) * height
    wide = min(tall * SUBJECTS[kind].aspect, 0.88 * width)
    tall = wide / SUBJECTS[kind].aspect  # lower again if the canvas limits the width
    # Keep the subject between the two lines of a meme, which cover a seventh of the canvas each.
    bottom = min(0.87 * height, 0.52 * height + tall / 2)
    left = generator.uniform(0.04 * width, 0.96 * width - wide)
    return Thing(
        kind=kind,
        # The only draw that depends on the family: nothing else may give it away.
        color=_choose(generator, WARM if family == "warm" else COOL),
        pattern=_pattern(generator),
        size="big",
        box=_box(left, bottom - tall, wide, tall),
    )


def _prop(generator: Generator, placed: list[Thing], canvas: tuple[int, int]) -> Thing | None:
    """Place a prop at a free position; None if twelve tries find none."""
    kind = _choose(generator, tuple(PROPS))
    color, pattern = _choose(generator, PROPS[kind].colors), _pattern(generator)
    # Never big: only the subject is.
    size = _choose(generator, SIZES[:2])
    tall = canvas[1] * (generator.uniform(0.12, 0.17) if size == "small" else generator.uniform(0.18, 0.25))
    wide = tall * PROPS[kind].aspect
    # A full canvas has no room, so the search must end.
    for _ in range(12):
        left, top = _position(generator, kind, placed, (wide, tall), canvas)
        box = _box(left, top, wide, tall)
        # Things may touch but not hide each other, or captions would not be true of the picture.
        if all(_overlap(box, thing.box) < 0.2 for thing in placed):
            return Thing(kind=kind, color=color, pattern=pattern, size=size, box=box)
    return None


def _position(
    generator: Generator,
    kind: str,
    placed: list[Thing],
    extent: tuple[float, float],
    canvas: tuple[int, int],
) -> tuple[float, float]:
    (wide, tall), (width, height) = extent, canvas
    # Only things with room above them.
    hosts = [thing for thing in placed if thing.kind in CARRIES and thing.box[1] - tall > 0]
    if kind in STANDS_ON and hosts and generator.random() < 0.5:
        host = hosts[int(generator.integers(len(hosts)))]
        # On the upper edge of the host, where `_stands_on` looks for it.
        return host.center[0] - wide / 2, host.box[1] - tall
    left = generator.uniform(0.02 * width, 0.98 * width - wide)
    if PROPS[kind].place == "sky":
        return left, generator.uniform(0.05 * height, 0.4 * height)
    return left, generator.uniform(HORIZON + 0.04, 0.95) * height - tall


def _pattern(generator: Generator) -> str:
    return PATTERNS[int(generator.choice(3, p=(0.6, 0.2, 0.2)))]


def _box(left: float, top: float, wide: float, tall: float) -> Box:
    return round(left), round(top), round(left + wide), round(top + tall)


def _overlap(box: Box, other: Box) -> float:
    """Share of `box` that lies inside `other`."""
    wide = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    tall = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    return wide * tall / ((box[2] - box[0]) * (box[3] - box[1]))


def _stands_on(one: Thing, other: Thing) -> bool:
    # Boxes are rounded to pixels, so the edges may be up to 2 pixels apart.
    within = other.box[0] < one.center[0] < other.box[2]
    return other.kind in CARRIES and within and abs(one.box[3] - other.box[1]) <= 2
