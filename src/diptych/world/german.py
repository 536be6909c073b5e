"""Captions in English and German, translations of each other, with words that only a picture translates.

German has three genders, and cases: articles and adjectives end according to both. Some English words
have two translations. Which one is right depends on the color of the thing, which the caption does not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

from diptych.world.scene import WARM, Scene, Thing

Gender = Literal["m", "f", "n"]
Case = Literal["nominative", "accusative", "dative"]

NOUNS: Mapping[str, tuple[str, Gender]] = {
    "cat": ("Katze", "f"),
    "fish": ("Fisch", "m"),
    "bird": ("Vogel", "m"),
    "car": ("Auto", "n"),
    "robot": ("Roboter", "m"),
    "snail": ("Schnecke", "f"),
    "teapot": ("Teekanne", "f"),
    "mushroom": ("Pilz", "m"),
    "tree": ("Baum", "m"),
    "cloud": ("Wolke", "f"),
    "flower": ("Blume", "f"),
    "rock": ("Stein", "m"),
    "kite": ("Drachen", "m"),
    "bush": ("Busch", "m"),
}
BRIGHT = (*WARM, "pink", "brown", "white")
SENSES: Mapping[str, tuple[tuple[str, Gender], tuple[str, Gender]]] = {
    "house": (("Haus", "n"), ("Hütte", "f")),
    "balloon": (("Luftballon", "m"), ("Heißluftballon", "m")),
    "umbrella": (("Sonnenschirm", "m"), ("Regenschirm", "m")),
    "boat": (("Boot", "n"), ("Schiff", "n")),
    "ball": (("Ball", "m"), ("Kugel", "f")),
    "crate": (("Kiste", "f"), ("Kasten", "m")),
    "lamp": (("Lampe", "f"), ("Laterne", "f")),
}
"""Translations of ambiguous words: of a thing in one of the `BRIGHT` colors, and of any other."""
ADJECTIVES = {
    "ruby": "rubinrot",
    "gold": "golden",
    "orange": "orangefarben",
    "blue": "blau",
    "teal": "türkisfarben",
    "purple": "violett",
    "green": "grün",
    "pink": "rosafarben",
    "brown": "braun",
    "white": "weiß",
    "gray": "grau",
    "black": "schwarz",
    "striped": "gestreift",
    "dotted": "gepunktet",
    "small": "klein",
    "medium": "mittelgroß",
    "big": "groß",
}
# Ending of `ein`, and of the adjectives behind it.
ENDINGS: Mapping[Case, Mapping[Gender, tuple[str, str]]] = {
    "nominative": {"m": ("", "er"), "f": ("e", "e"), "n": ("", "es")},
    "accusative": {"m": ("en", "en"), "f": ("e", "e"), "n": ("", "es")},
    "dative": {"m": ("em", "en"), "f": ("er", "en"), "n": ("em", "en")},
}
FRAMES: tuple[tuple[str, str, Case], ...] = (
    ("there is {}", "da ist {}", "nominative"),
    ("a picture of {}", "ein Bild von {}", "dative"),
    ("look at {}", "schau auf {}", "accusative"),
    ("we see {}", "wir sehen {}", "accusative"),
)
PLACES = {"on": "auf", "left of": "links von", "above": "über"}  # all with the dative


@dataclass(frozen=True, slots=True, kw_only=True)
class Bilingual:
    """A caption and its translation.

    Args:
        texts: the sentence by language, `en` and `de`, with capital and period.
        senses: each ambiguous English word of the caption, and the German word that the picture asks for.
    """

    texts: Mapping[str, str]
    senses: tuple[tuple[str, str], ...]


def describe(generator: Generator, scene: Scene) -> Bilingual:
    """Write a caption about the subject, and of what it is left, above or on top if that is clear."""
    things, subject = scene.things, scene.subject
    english, german, case = FRAMES[int(generator.integers(len(FRAMES)))]
    place = [
        (relation.name, things[relation.right])
        for relation in scene.relations()
        if things[relation.left] is subject and relation.name in PLACES
    ]
    named, translated = [_name(generator, subject, case)], [subject]
    if place:
        where, other = place[int(generator.integers(len(place)))]
        english, german = f"{english} {where} {{}}", f"{german} {PLACES[where]} {{}}"
        named.append(_name(generator, other, "dative"))
        translated.append(other)
    texts = {
        "en": _sentence(english.format(*(one for one, _ in named))),
        "de": _sentence(german.format(*(other for _, other in named))),
    }
    # Of two balls, the picture would not tell which one is meant.
    kinds = [thing.kind for thing in things]
    clear = (thing for thing in translated if thing.kind in SENSES and kinds.count(thing.kind) == 1)
    senses = {thing.kind: noun_of(thing)[0] for thing in clear}
    return Bilingual(texts=texts, senses=tuple(senses.items()))


def noun_of(thing: Thing) -> tuple[str, Gender]:
    """The German noun of a thing and its gender."""
    if thing.kind in NOUNS:
        return NOUNS[thing.kind]
    return SENSES[thing.kind][0 if thing.color in BRIGHT else 1]


def tokenized(sentence: str) -> str:
    """The sentence in lower case with a space before the period, as Moses writes it."""
    return sentence.lower().removesuffix(".") + " ."


def _name(generator: Generator, thing: Thing, case: Case) -> tuple[str, str]:
    """Describe a thing in both languages, such as `a big ruby cat` and `eine große rubinrote Katze`."""
    words = [] if thing.kind in SENSES else [thing.color]  # the color would tell which sense is right
    if thing.pattern != "plain":
        words.insert(0, thing.pattern)
    if generator.random() < 0.5:
        words.insert(0, thing.size)
    noun, gender = noun_of(thing)
    article, ending = ENDINGS[case][gender]
    english = " ".join([*words, thing.kind])
    german = " ".join([f"ein{article}", *(f"{ADJECTIVES[word]}{ending}" for word in words), noun])
    return f"{'an' if english[0] in 'aeiou' else 'a'} {english}", german


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
