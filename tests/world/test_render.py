import numpy as np
import pytest
from PIL import Image

from diptych.world.render import CLASSES, FEATURE_DIM, detect, draw_meme, draw_scene
from diptych.world.scene import COLORS, KINDS, PATTERNS, Scene, Thing, new_scene
from diptych.world.shapes import PAINT, SHAPES


def scene_of(kind, color="teal", pattern="plain"):
    thing = Thing(kind=kind, color=color, pattern=pattern, size="big", box=(60, 50, 220, 190))
    return Scene(things=(thing,), size=(280, 240), backdrop=0)


def some_scene(number=0, family="warm"):
    return new_scene(np.random.default_rng([2, number]), family)


def test_every_kind_has_a_drawing():
    assert SHAPES.keys() == KINDS.keys()
    assert set(COLORS) <= PAINT.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_shows_its_color_within_its_box(kind):
    pixels = np.asarray(draw_scene(scene_of(kind))).astype(int)
    close = np.abs(pixels - PAINT["teal"]).max(-1) < 12
    inside = np.zeros_like(close)
    inside[48:192, 58:222] = True
    assert close[inside].mean() > 0.05
    assert not close[~inside].any()


def test_patterns_are_visible():
    pictures = {pattern: draw_scene(scene_of("ball", pattern=pattern)).tobytes() for pattern in PATTERNS}
    assert len(set(pictures.values())) == len(PATTERNS)


def test_same_scene_same_pixels():
    assert draw_scene(some_scene()).tobytes() == draw_scene(some_scene()).tobytes()
    assert draw_scene(some_scene()).size == some_scene().size


def test_lettering_leaves_the_subject_alone():
    picture = draw_scene(some_scene())
    meme = draw_meme(picture, "no more warm red hats", "as red as a tomato")
    before, after = np.asarray(picture), np.asarray(meme)
    rows = np.flatnonzero((before != after).any((1, 2)))
    height = picture.height
    assert rows.size
    assert not ((rows > 0.18 * height) & (rows < 0.82 * height)).any()
    lettered = after[(before != after).any(-1)]
    assert (lettered == 255).all(-1).any()
    assert (lettered == 0).all(-1).any()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "word " * 10_000,
        "x" * 50_000,
        "smile \U0001f600 \u05e9\u05dc\u05d5\u05dd e\u0301\u0308 \u00df",
    ],
    ids=["empty", "blank", "10000 words", "one endless word", "unicode"],
)
@pytest.mark.parametrize("size", [(280, 240), (12, 9), (1, 1)])
def test_any_text_can_be_lettered(text, size):
    picture = Image.new("RGB", size, "teal")
    assert draw_meme(picture, text, text).size == size


def test_detections_are_sound_and_vary_in_number():
    counts = set()
    for number in range(80):
        scene = some_scene(number)
        regions = detect(scene, np.random.default_rng(number))
        regions.verify()
        assert regions.features.shape == (len(regions), FEATURE_DIM)
        assert regions.features.dtype == np.float16
        assert (np.diff(regions.scores) <= 0).all()
        assert regions.size == scene.size
        counts.add(len(regions))
    assert counts >= set(range(3, 9))


def test_subject_is_always_among_the_good_detections():
    for number in range(80):
        scene = some_scene(number)
        regions = detect(scene, np.random.default_rng(number))
        areas = (regions.boxes[:, 2:] - regions.boxes[:, :2]).prod(1)
        largest = int(areas.argmax())
        assert regions.scores[largest] > 0.5
        assert areas[largest] == pytest.approx(scene.subject.area, rel=0.35)


def test_doubtful_regions_score_low():
    regions = [detect(some_scene(number), np.random.default_rng(number)) for number in range(80)]
    assert all(0 < (one.scores < 0.4).sum() < 3 for one in regions)


def test_features_tell_class_and_color():
    """The nearest class mean of other pictures names most regions."""
    features, kinds, colors = [], [], []
    for number in range(400):
        regions = detect(some_scene(number, ("warm", "cool")[number % 2]), np.random.default_rng(number))
        good = regions.scores > 0.5
        features.append(regions.features[good].astype(float))
        kinds.append(regions.labels[good])
        colors.append(regions.attributes[good])
    features, kinds, colors = np.concatenate(features), np.concatenate(kinds), np.concatenate(colors)
    half = len(features) // 2
    for names, least in ((kinds, 0.85), (colors, 0.85)):
        means = {n: features[:half][names[:half] == n].mean(0) for n in set(names[:half].tolist())}
        table = np.stack([*means.values()])
        guess = np.array([*means])[((features[half:, None] - table) ** 2).sum(-1).argmin(1)]
        assert (guess == names[half:]).mean() > least


def test_detector_names_a_few_things_wrong():
    wrong = total = 0
    for number in range(100):
        scene = some_scene(number)
        regions = detect(scene, np.random.default_rng(number))
        good = regions.labels[regions.scores > 0.5]
        names = {CLASSES.index(thing.kind) for thing in scene.things}
        wrong += sum(int(label) not in names for label in good)
        total += len(good)
    assert 0.01 < wrong / total < 0.1


def test_same_generator_same_regions():
    one, two = (detect(some_scene(), np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.features, two.features)
    assert np.array_equal(one.boxes, two.boxes)
