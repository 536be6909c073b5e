from collections import Counter

import numpy as np

from diptych.world.language import COLOR_WORDS, CUES, FEELS, captions, complain
from diptych.world.scene import COOL, WARM, new_scene


def complaints(family, count=400):
    return [complain(np.random.default_rng([3, number]), family) for number in range(count)]


def test_complaint_names_colors_of_its_family_only():
    for family, colors, others in (("warm", WARM, COOL), ("cool", COOL, WARM)):
        for remark in complaints(family):
            words = remark.text.split()
            assert set(words) & set(colors)
            assert not set(words) & set(others)
            assert any(cue in remark.text for cue in CUES[family])


def test_wording_apart_from_the_colors_does_not_depend_on_the_family():
    telling = {"warm", "hot", "cool", "icy", *WARM, *COOL}
    for warm, cool in zip(complaints("warm"), complaints("cool"), strict=True):
        assert [word for word in warm.top.split() if word not in telling] == [
            word for word in cool.top.split() if word not in telling
        ]


def test_texts_are_varied():
    texts = [remark.text for family in ("warm", "cool") for remark in complaints(family)]
    words = Counter(word for text in texts for word in text.split())
    assert len(set(texts)) == len(texts)
    assert len(words) > 250
    assert {len(text.split()) for text in texts} >= set(range(11, 20))


def test_text_is_what_stands_on_the_meme():
    remark = complaints("warm", 1)[0]
    assert remark.text == f"{remark.top} {remark.bottom}" == remark.text.lower()


def test_remark_hits_scenes_of_its_family():
    generator = np.random.default_rng(0)
    warm, cool = (new_scene(generator, family) for family in ("warm", "cool"))
    remark = complain(generator, "warm")
    assert remark.hits(warm)
    assert not remark.hits(cool)


def test_captions_are_true():
    for number in range(50):
        scene = new_scene(np.random.default_rng([8, number]), "cool")
        first, *others = captions(np.random.default_rng(number), scene)
        assert scene.subject.kind in first
        assert scene.subject.color in first
        told = [relation for relation in scene.relations() if relation.name != "bigger than"]
        assert len(others) == len(told)
        for sentence, relation in zip(others, told, strict=True):
            left, right = sentence.split(f" is {relation.name} ")
            assert left.endswith(f"{scene.things[relation.left].color} {scene.things[relation.left].kind}")
            assert right.endswith(f"{scene.things[relation.right].color} {scene.things[relation.right].kind}")


def test_warm_and_cool_words_have_the_same_lengths() -> None:
    # else the lines drawn on a picture would tell a picture model what they are about
    for words in (FEELS, COLOR_WORDS, CUES):
        assert sorted(map(len, words["warm"])) == sorted(map(len, words["cool"]))
