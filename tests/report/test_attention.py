import base64
import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from diptych.errors import ConfigError
from diptych.explain import ExampleMaps, MapLayer, PairMaps, Place
from diptych.report import attention_page
from diptych.report.views import blocks, first_view, strongest

NASTY = "</script><img src=x onerror=alert(1)> {script} \ud800 \u202e &amp;"


def pair(text="a hot dog", regions=3, heads=2, layers=2, images=(None,)):
    words = ["[CLS]", *text.split(), "[SEP]"]
    places = [Place(name=word, side="text", special=word[0] == "[", piece=word) for word in words]
    boxes = [(0.1 * n % 0.9, 0.0, 1.0, 1.0) for n in range(regions)]
    places += [Place(name="dog", side="regions", number=n, box=box) for n, box in enumerate(boxes, 1)]
    every = tuple(range(len(places)))
    weights = np.random.default_rng(0).dirichlet(np.ones(len(places)), (layers, heads, len(places)))
    shown = [
        MapLayer(
            name=f"l{n}", title=f"layer {n}", sides=("both", "both"), queries=every, keys=every, weights=one
        )
        for n, one in enumerate(weights.astype(np.float32), 1)
    ]
    return PairMaps(text=text, images=images, places=tuple(places), layers=tuple(shown))


def content(path):
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(found[1])


def test_views_cut_blocks_out_of_the_maps():
    one = pair()
    (block, _) = blocks(one, "text-regions")
    assert [one.places[n].name for n in block.rows] == ["a", "hot", "dog"]
    assert [one.places[n].number for n in block.columns] == [1, 2, 3]
    np.testing.assert_array_equal(block.weights, one.layers[0].weights[:, 1:4, 5:])
    assert blocks(one, "text-text", special=True)[0].weights.shape == (2, 5, 5)
    assert blocks(one, "all")[0].weights.shape == (2, 8, 8)
    assert first_view(one) == "text-regions"
    assert first_view(pair(regions=0)) == "text-text"
    assert first_view(pair(text="", regions=0)) == "all"
    one.layers[1].weights[1, 1:4, 5:] = 1
    assert strongest(blocks(one, "text-regions")) == (1, 1)


def test_a_page_holds_everything_and_asks_the_network_for_nothing(tmp_path):
    Image.new("RGB", (60, 40), "white").save(tmp_path / "white.png")
    one = pair(images=(tmp_path / "white.png",))
    files = attention_page(
        [ExampleMaps(id="7", pairs=(one,), answer="x")], tmp_path / "p.html", title="UNITER"
    )
    assert [path.name for path in files] == ["p.html", "p-heads.png", "p-head.png"]
    text = files[0].read_text()
    assert "http:" not in text
    assert "https:" not in text
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text  # or the browser would not run it
    (shown,) = content(files[0])["pairs"]
    layer = shown["layers"][1]
    levels = np.frombuffer(base64.b64decode(layer["data"]), np.uint8) / 255
    expected = one.layers[1].weights
    np.testing.assert_allclose((levels**2).reshape(expected.shape), expected, atol=0.004)
    assert shown["pictures"][0]["src"].startswith("data:image/jpeg;base64,")
    for path in files[1:]:
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_texts_of_strangers_are_no_markup(tmp_path):
    nasty = pair(text=NASTY)
    (page, *_) = attention_page([ExampleMaps(id=NASTY, pairs=(nasty,))], tmp_path / "p.html", title=NASTY)
    text = page.read_text()
    assert "<img src=x" not in text
    assert content(page)["pairs"][0]["text"] == NASTY


def test_pairs_have_pictures_of_their_own(tmp_path):
    maps = [ExampleMaps(id="7", pairs=(pair(), pair(images=(None, None))))]
    files = attention_page(maps, tmp_path / "p.html", title="t", layer=2, head=1)
    assert [path.name for path in files[1:]] == [
        "p-1-heads.png", "p-1-head.png", "p-2-heads.png", "p-2-head.png"
    ]  # fmt: skip
    shown = content(files[0])["pairs"]
    assert [(one["label"], one["layer"], one["head"]) for one in shown] == [
        ("7, pair 1", 1, 0),
        ("7, pair 2", 1, 0),
    ]
    assert shown[0]["pictures"] == [{"note": "no picture"}]


def test_many_regions_are_limited(tmp_path):
    (page, *_) = attention_page(
        [ExampleMaps(id="7", pairs=(pair(regions=300, layers=1),))], tmp_path / "p.html", title="t"
    )
    places = content(page)["pairs"][0]["places"]
    assert sum(place["number"] > 0 for place in places) == 64
    assert places[-1]["name"] == "236 more regions"


@pytest.mark.parametrize(
    ("options", "message"), [({"layer": 3}, "--layer is 3.*to 2"), ({"head": 0}, "--head is 0")]
)
def test_a_layer_or_head_that_is_not_there_is_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        attention_page([ExampleMaps(id="7", pairs=(pair(),))], tmp_path / "p.html", title="t", **options)
    assert not [*tmp_path.iterdir()]
