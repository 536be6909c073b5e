"""Regions that a detector finds in new pictures, as it did for the store of training."""

import shutil

import pytest
from tests.serve.conftest import saved

from diptych.cli import main
from diptych.errors import ConfigError
from diptych.images import open_image
from diptych.serve import Problem, Setup, load_model
from diptych.serve.models import require_used
from diptych.serve.regions import Meme
from diptych.study import score_meme


@pytest.fixture(scope="module")
def run(memes, tmp_path_factory):
    """A model of regions whose store has two pictures, and one of them."""
    folder = tmp_path_factory.mktemp("detected")
    (folder / "img").mkdir()
    pictures = sorted((memes / "img").glob("*.png"))[:2]
    for picture in pictures:
        shutil.copy(picture, folder / "img")
    words = ["detector=tiny", "boxes=3", "threads=1"]
    assert main(["extract", str(folder / "img"), str(folder / "features"), *words]) == 0
    [store] = (path for path in (folder / "features").iterdir() if path.is_dir())
    return saved(folder / "run", memes, "uniter_tiny", regions=True, store=store), pictures[0]


def test_regions_of_a_new_picture_score_as_those_of_the_store(run):
    source, picture = run
    expected = score_meme(source, image=picture, text="a day", device="cpu")
    model = load_model("found", source, Setup(weights={"tiny": None}, device="cpu"))
    [scored] = model.score([model.prepare(Meme(text="a day", image=open_image(picture)))])
    assert scored.scores == pytest.approx(dict(expected.scores), abs=1e-6)
    with pytest.raises(Problem) as caught:
        model.prepare(Meme(text="a day", key=picture.stem))
    assert caught.value.errors[0][0] == "/image"


def test_without_a_detector_there_are_keys_alone(run):
    source, picture = run
    model = load_model("keys", source, Setup(device="cpu"))
    assert model.prepare(Meme(text="a", key=picture.stem)).regions
    for meme in (Meme(text="a", image=open_image(picture)), Meme(text="a", key="other")):
        with pytest.raises(Problem) as caught:
            model.prepare(meme)
        assert caught.value.status == 422


def test_weights_of_another_detector_are_refused(run):
    with pytest.raises(ConfigError, match="tiny"):
        load_model("wrong", run[0], Setup(weights={"vgattr": None}, device="cpu"))


def test_stores_and_detectors_are_for_one_of_the_models(run, sources):
    text, found = (
        load_model(name, place, Setup()) for name, place in {"t": sources["text"], "f": run[0]}.items()
    )
    for setup in (Setup(features={"features": run[1]}), Setup(weights={"tiny": None})):
        require_used([text, found], setup)
        with pytest.raises(ConfigError, match=r"features|tiny"):
            require_used([text], setup)
    with pytest.raises(ConfigError, match="extra"):
        require_used([text, found], Setup(features={"extra": run[1]}))
