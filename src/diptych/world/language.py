"""Texts about scenes: true captions, and the complaints that memes print on their pictures.

A complaint is about warm or about cool colors. It is drawn from a grammar of some hundred words. Only the
words for the feel, the color and the comparison differ between warm and cool. Both have words of equal
lengths, so that an image-only model cannot infer the answer from the shape of the printed text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from numpy.random import Generator

from diptych.world.scene import COOL, WARM, Family, Scene, Thing


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


FEELS: dict[Family, tuple[str, ...]] = {"warm": ("warm", "hot"), "cool": ("cool", "icy")}
COLOR_WORDS: dict[Family, tuple[str, ...]] = {"warm": WARM, "cool": COOL}
CUES: dict[Family, tuple[str, ...]] = {
    "warm": _phrases(
        "a tomato|a bottle of ketchup|a chili pepper|a volcano|a campfire|a pumpkin|a carrot|a mango|"
        "a banana|a lemon|a sunset|a fox|a toaster|a pot of honey|a slice of cheese|an apricot"
    ),
    "cool": _phrases(
        "a puddle|a bottle of sea fog|a frozen grape|a glacier|a blizzard|a dolphin|a lagoon|a whale|"
        "an ocean|a river|a galaxy|a sea|a freezer|a pot of frost|a slice of winter|an iceberg"
    ),
}
OPENERS = _phrases(
    "monday morning mood|breaking news|not to be rude|dear diary|my grandma always says|plot twist|hot take|"
    "fun fact|true story|just saying|note to self|small reminder|honest question|my therapist asked why|"
    "the neighbors know it|everybody at the party agrees|when they ask me at work|me at three in the morning|"
    "nobody said it yet|after five cups of tea|with all due respect|today i learned|unpopular opinion|"
    "the committee has spoken|long story short|meanwhile at home|as the poet wrote|imagine waking up and|"
    "dear santa|captain speaking|weather report|my horoscope warned me|according to science"
)
COMPLAINTS = _phrases(
    "i am so tired of|i can not stand|please no more|who on earth likes|life is too short for|"
    "we had quite enough of|keep me away from|nothing is as silly as|i never asked for|somebody hide|"
    "the world does not need|there is no excuse for|let us all giggle at|i would not pay a penny for|"
    "do not trust|my eyes hurt from|no museum wants|back to the shop with"
)
NOUNS = _phrases(
    "stuff|things|nonsense|business|furniture|gadgets|paint jobs|outfits|curtains|socks|hats|wallpaper|"
    "decoration|toys|sweaters|carpets|bicycles|postcards|buttons|lamps|sofas|shoes|kitchens|garden gnomes"
)
COMPARISONS = _phrases(
    "{feel} and {color} like {cue}|as {feel} and {color} as {cue}|so {feel} and {color} it looks like {cue}|"
    "more {feel} and {color} than {cue}|{feel} and {color} and shaped like {cue}|"
    "smells {feel} and {color} like {cue}|such {color} belongs on {cue}|who painted {cue} {feel} {color}"
)
TAILS = _phrases(
    "even gray would be better|says the rock|ask any cloud|and the tree agrees|no offense|thank you|the end|"
    "every single day|since last summer|again and again|what a life|bring me a white one|i will wait|"
    "sorry not sorry|black never looks like that|this is my final word|"
    "sincerely yours|send cookies|see you tomorrow|better luck next year|call my lawyer"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Text of a meme: its top line, its bottom line, and the family of colors it complains about.

    Args:
        spans: first character in `text`, and the one after the last, of each word or phrase that tells the
            family: nothing else in the text depends on it.
    """

    top: str
    bottom: str
    about: Family
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        return f"{self.top} {self.bottom}"

    def hits(self, scene: Scene) -> bool:
        """Whether the scene's subject has a color of the family that the text complains about."""
        return self.about == scene.family


def complain(generator: Generator, about: Family) -> Remark:
    """Draw a complaint about warm or cool colors."""

    def pick(options: Sequence[str]) -> str:
        return options[int(generator.integers(len(options)))]

    # Draws happen in a fixed order, or equal seeds would give other texts.
    opener = f"{pick(OPENERS)} " if generator.random() < 0.25 else ""
    tail = f" {pick(TAILS)}" if generator.random() < 0.25 else ""
    feel, color, cue = pick(FEELS[about]), pick(COLOR_WORDS[about]), pick(CUES[about])
    comparison = pick(COMPARISONS)
    words = {"feel": feel, "color": color, "cue": cue}
    top, above = _filled(f"{opener}{pick(COMPLAINTS)} {{feel}} {{color}} {pick(NOUNS)}", words)
    bottom, below = _filled(f"{comparison}{tail}", words)
    moved = ((start + len(top) + 1, stop + len(top) + 1) for start, stop in below)
    return Remark(top=top, bottom=bottom, about=about, spans=(*above, *moved))


def _filled(pattern: str, words: Mapping[str, str]) -> tuple[str, list[tuple[int, int]]]:
    """Fill a pattern; returns the text, and where each word lies in it."""
    text, spans = "", []
    for literal, name, _, _ in Formatter().parse(pattern):
        text += literal
        if name is not None:
            spans.append((len(text), len(text) + len(words[name])))
            text += words[name]
    return text, spans


def captions(generator: Generator, scene: Scene) -> tuple[str, ...]:
    """Write true sentences: one about the subject, and one about each relation except of size."""
    things = scene.things
    # Named once, so that all sentences call a thing by the same words.
    names = [_name(generator, thing) for thing in things]
    main = names[things.index(scene.subject)]
    verb = ("there is {}", "a picture of {}", "look at {}", "we see {}")[int(generator.integers(4))]
    sentences = [verb.format(main)]
    for relation in scene.relations():
        if relation.name != "bigger than":
            sentences.append(f"{names[relation.left]} is {relation.name} {names[relation.right]}")
    return tuple(sentences)


def _name(generator: Generator, thing: Thing) -> str:
    """Describe a thing, such as `a striped ruby cat` or `a small gray rock`."""
    words = [thing.color, thing.kind]
    if thing.pattern != "plain":
        words.insert(0, thing.pattern)
    # Now and then, as people do.
    if generator.random() < 0.5:
        words.insert(0, thing.size)
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"
