from dataclasses import replace

import numpy as np
import pytest

from diptych.world.scene import COOL, WARM, Thing, new_scene


def scenes(count=60, family="warm"):
    return [new_scene(np.random.default_rng([5, number]), family) for number in range(count)]


@pytest.mark.parametrize(("family", "colors"), [("warm", WARM), ("cool", COOL)])
def test_subject_is_the_largest_thing_and_wears_its_family(family, colors):
    for scene in scenes(family=family):
        assert scene.family == family
        assert scene.subject.color in colors
        assert scene.subject is scene.things[-1]
        assert scene.subject.area > 2 * max((thing.area for thing in scene.things[:-1]), default=0)


def test_nothing_but_the_color_of_the_subject_depends_on_the_family():
    for warm, cool in zip(scenes(family="warm"), scenes(family="cool"), strict=True):
        assert warm.things[:-1] == cool.things[:-1]
        assert replace(warm.subject, color="") == replace(cool.subject, color="")
        assert (warm.size, warm.backdrop) == (cool.size, cool.backdrop)


def test_props_do_not_matter_for_the_family():
    warm, cool = scenes(1, "warm")[0], scenes(1, "cool")[0]
    crowded = replace(warm, things=(*(replace(t, color="blue") for t in warm.things[:-1]), warm.subject))
    assert crowded.family == replace(warm, things=(warm.subject,)).family == "warm"
    assert replace(cool, things=(cool.subject,)).family == "cool"


def test_things_stay_on_the_canvas():
    for scene in scenes():
        width, height = scene.size
        for thing in scene.things:
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


def test_scenes_vary_in_every_respect():
    several = scenes(200)
    assert len({scene.size for scene in several}) == 3
    assert len({scene.backdrop for scene in several}) == 6
    assert len({scene.subject.kind for scene in several}) == 12
    assert {len(scene.things) for scene in several} >= {2, 3, 4, 5, 6}
    assert {name.name for scene in several for name in scene.relations()} == {
        "on",
        "left of",
        "above",
        "bigger than",
    }


def test_relations_say_what_the_boxes_show():
    def thing(kind, *box):
        return Thing(kind=kind, color="ruby", pattern="plain", size="small", box=box)

    crate, ball, kite = (
        thing("crate", 0, 80, 40, 120),
        thing("ball", 10, 60, 30, 80),
        thing("kite", 90, 0, 99, 9),
    )
    scene = replace(scenes(1)[0], things=(crate, ball, kite))
    found = {(relation.left, relation.name, relation.right) for relation in scene.relations()}
    assert found == {
        (1, "on", 0),
        (1, "above", 0),
        (2, "above", 0),
        (2, "above", 1),
        (0, "left of", 2),
        (1, "left of", 2),
        (0, "bigger than", 1),
        (0, "bigger than", 2),
        (1, "bigger than", 2),
    }
