"""The same numbers as `diptych predict`, whichever way a meme comes."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.serve.conftest import policy_for

from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore
from diptych.images import image_size, open_image
from diptych.predict import load


def encoded(path):
    return {"bytes": b64encode(path.read_bytes()).decode()}


def test_a_picture_scores_bit_for_bit_as_predicted(serve, sources, picture):
    ask, text = serve("pixels"), "what a day"
    expected = dict(load(sources["pixels"], device="cpu").predict(text=text, image=picture).scores)
    answer = ask.score({"text": text, "image": encoded(picture), "id": "m1"}).json()
    assert answer["raw"] == answer["scores"] == expected
    assert (answer["id"], answer["decision"], answer["model"]["calibration"]) == ("m1", None, None)
    width, height = image_size(picture)
    assert answer["read"] == {
        "text": text, "text_source": "given", "regions": None, "width": width, "height": height,
        "animated": False,
    }  # fmt: skip
    files = {"image": picture.read_bytes(), "request": (None, f'{{"text": "{text}"}}', "application/json")}
    again = ask("POST", "/v1/score", files=files).json()
    assert again["raw"] == expected
    assert again["timing_ms"]["cache"] == "hit"


def test_a_turned_jpeg_scores_as_its_file(serve, sources, tmp_path, picture):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    open_image(picture).save(path, exif=exif)
    expected = load(sources["pixels"], device="cpu").predict(text="a", image=path).scores
    answer = serve("pixels").score({"text": "a", "image": encoded(path)}).json()
    assert answer["raw"] == dict(expected)
    assert (answer["read"]["width"], answer["read"]["height"]) == image_size(path)


def test_regions_by_key_score_bit_for_bit_as_the_split(serve, sources, memes):
    dataset, store = HatefulMemes(memes, "dev_seen"), FeatureStore(memes / "features")
    predictor = load(sources["regions"], device="cpu")
    alone = predictor.predict_dataset(dataset, features=store, batch_size=1).column("hateful")
    ask = serve("text", "regions")
    for number in (0, 3):
        pair = dataset[number].pairs[0]
        answer = ask.score({"text": pair.text, "image": {"key": pair.image}, "model": "regions"}).json()
        assert answer["raw"]["hateful"] == alone[number]
        assert answer["read"]["regions"] == len(store[pair.image])


def test_batches_change_no_score_by_more_than_rounding(serve, sources, memes):
    dataset, store = HatefulMemes(memes, "dev_seen"), FeatureStore(memes / "features")
    predictor = load(sources["regions"], device="cpu")
    alone = predictor.predict_dataset(dataset, features=store, batch_size=1).column("hateful")
    ask = serve("regions")
    pairs = [dataset[number].pairs[0] for number in range(len(dataset))]
    bodies = [{"text": pair.text, "image": {"key": pair.image}} for pair in pairs]
    answers = ask.together([("POST", "/v1/score", {"json": body}) for body in bodies])
    found = np.array([answer.json()["raw"]["hateful"] for answer in answers])
    assert np.abs(found - alone).max() <= 1e-6
    rows = ask.service.metrics.batch_rows.labels("regions")._sum.get()
    assert rows == len(dataset)
    assert ask.service.metrics.model_seconds.labels("regions")._sum.get() > 0


def test_an_animation_is_read_by_its_first_frame(serve, sources, tmp_path):
    frames = [Image.new("RGB", (20, 30), color) for color in ("red", "blue")]
    stored = BytesIO()
    frames[0].save(stored, "GIF", save_all=True, append_images=frames[1:])
    path = Path(tmp_path / "a.gif")
    path.write_bytes(stored.getvalue())
    answer = serve("pixels").score({"text": "a", "image": encoded(path)}).json()
    assert answer["read"]["animated"]
    assert answer["raw"] == dict(load(sources["pixels"], device="cpu").predict(text="a", image=path).scores)


def test_a_picture_of_a_folder_is_found_by_its_key(serve, sources, picture):
    known = {picture.stem: picture}
    ask = serve("pixels", picture_of=lambda key: known[key].read_bytes() if key in known else None)
    answer = ask.score({"text": "a", "image": {"key": picture.stem}}).json()
    assert answer["raw"] == dict(
        load(sources["pixels"], device="cpu").predict(text="a", image=picture).scores
    )
    refused = ask.score({"text": "a", "image": {"key": "../" + picture.stem}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/image/key"


def test_a_policy_decides_and_calibrates(serve, models, picture):
    ask = serve("pixels", policies=True)
    answer = ask.score({"text": "a", "image": encoded(picture), "policy": "default"}).json()
    rule = models["pixels"].policy.labels["hateful"]
    raw = answer["raw"]["hateful"]
    assert answer["scores"] == {"hateful": pytest.approx(float(rule.map(np.array([raw]))[0]))}
    decision = answer["decision"]
    assert decision["action"] == ("allow" if raw < 0.2 else "block" if raw > 0.9 else "review")
    assert decision["policy"] == "default@" + "f" * 12
    assert answer["model"]["calibration"].startswith("platt")


def test_allowed_memes_are_drawn_for_people(serve, models):
    ask = serve("text", sample=1.0)
    models["text"].decide_by("default", "f" * 64, policy_for(models["text"], allow=1.0, block=None))
    decision = ask.score({"text": "a"}).json()["decision"]
    assert (decision["action"], decision["audit"]) == ("allow", True)
