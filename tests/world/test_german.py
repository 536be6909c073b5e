"""Captions in two languages: grammar, and words that only the picture translates."""

from collections import defaultdict

import numpy as np
import pytest

from diptych.world import describe, new_scene
from diptych.world.german import BRIGHT, NOUNS, SENSES, _name, noun_of
from diptych.world.scene import COLORS, KINDS, Thing


def thing(kind, color, pattern="plain"):
    return Thing(kind=kind, color=color, pattern=pattern, size="big", box=(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("one", "case", "english", "german"),
    [
        (thing("cat", "ruby"), "nominative", "a big ruby cat", "eine große rubinrote Katze"),
        (thing("cat", "ruby"), "dative", "a big ruby cat", "einer großen rubinroten Katze"),
        (thing("fish", "blue"), "nominative", "a big blue fish", "ein großer blauer Fisch"),
        (thing("fish", "blue"), "accusative", "a big blue fish", "einen großen blauen Fisch"),
        (thing("car", "teal"), "accusative", "a big teal car", "ein großes türkisfarbenes Auto"),
        (thing("car", "teal"), "dative", "a big teal car", "einem großen türkisfarbenen Auto"),
        (thing("umbrella", "gold", "dotted"), "nominative", "a big dotted umbrella",
         "ein großer gepunkteter Sonnenschirm"),
        (thing("umbrella", "blue", "dotted"), "dative", "a big dotted umbrella",
         "einem großen gepunkteten Regenschirm"),
    ],
)  # fmt: skip
def test_articles_and_adjectives_agree(one, case, english, german):
    assert _name(np.random.default_rng(2), one, case) == (english, german)


def test_every_thing_has_a_noun():
    assert {*NOUNS, *SENSES} == {*KINDS}
    assert not {*NOUNS} & {*SENSES}


def test_only_the_picture_tells_the_sense():
    """The same English caption has different translations, and the color decides."""
    generator = np.random.default_rng(0)
    found = defaultdict(set)
    for number in range(150):
        scene = new_scene(generator, "warm" if number % 2 else "cool")
        caption = describe(generator, scene)
        for word, noun in caption.senses:
            (one,) = (one for one in scene.things if one.kind == word)
            assert noun_of(one)[0] == noun
            assert noun == SENSES[word][one.color not in BRIGHT][0]
            assert noun in caption.texts["de"].removesuffix(".").split()
            assert word in caption.texts["en"].removesuffix(".").split()
            if one is scene.subject:
                assert not {*COLORS} & {*caption.texts["en"].partition(word)[0].split()}
            found[caption.texts["en"]].add(noun)
    assert sum(len(nouns) > 1 for nouns in found.values()) >= 2
