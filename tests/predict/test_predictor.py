from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.bundle import Bundle
from diptych.data import DetectorTransform, Processor, bare_regions
from diptych.datasets import HatefulMemes, Table
from diptych.errors import ConfigError, MissingFeatures
from diptych.features import FeatureStore
from diptych.images import image_size
from diptych.models import EndToEnd, RegionEncoder
from diptych.nn import resnet_tiny
from diptych.predict import GivenRegions, Predictor
from diptych.recipe.call import call
from diptych.types import FeatureMeta

TEXT = {"_target_": "diptych.text.WordPiece"}


def predictor(memes: Path, model: str, features: FeatureMeta | None = None, **options: object) -> Predictor:
    text = TEXT | {"vocabulary": str(memes / "vocabulary.txt")}
    processor = call({"_target_": "diptych.data.Processor", "text": text, **options})
    sizes = {"vocab_size": processor.text.vocab_size}
    if features is not None:
        sizes["feature_dim"] = features.feature_dim
    torch.manual_seed(0)
    built = call({"_target_": f"diptych.models.{model}", **sizes})
    task = call({"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"]}, model=built)
    bundle = Bundle(model=built.eval(), task=task.eval(), processor=processor, features=features)
    return Predictor(bundle, device="cpu")


@pytest.fixture
def store(memes: Path) -> FeatureStore:
    return FeatureStore(memes / "features")


def test_predictions_come_in_the_order_of_the_split(memes: Path, store: FeatureStore) -> None:
    uniter, dataset = predictor(memes, "uniter_tiny", store.meta, regions=True), HatefulMemes(memes, "train")
    calls: list[tuple[int, int]] = []
    predictions = uniter.predict_dataset(
        dataset, features=store, batch_size=7, progress=lambda done, total: calls.append((done, total))
    )
    assert predictions.ids == dataset.ids
    assert calls[-1] == (len(dataset), len(dataset))
    alone = uniter.predict(text=dataset[5].pairs[0].text, regions=store[dataset[5].pairs[0].image])
    assert alone.scores["hateful"] == pytest.approx(predictions.column("hateful")[5], abs=1e-6)
    assert alone.answer in alone.scores
    looked_up = uniter.predict(text=dataset[5].pairs[0].text, image=dataset[5].pairs[0].image, regions=store)
    assert looked_up == alone


def test_workers_and_batch_size_do_not_change_a_score(memes: Path, store: FeatureStore) -> None:
    uniter, dataset = (
        predictor(memes, "uniter_tiny", store.meta, regions=True),
        HatefulMemes(memes, "dev_seen"),
    )
    one = uniter.predict_dataset(dataset, features=store, batch_size=1)
    many = uniter.predict_dataset(dataset, features=store, batch_size=64, workers=1)
    assert np.allclose(one.scores, many.scores, atol=1e-6)


def test_a_picture_may_be_a_path_or_an_image(memes: Path) -> None:
    concat = predictor(memes, "concat_bert_tiny", image_size=32)
    path = next((memes / "img").glob("*.png"))
    with Image.open(path) as image:
        verdicts = concat.predict_many(texts=["so red", "so red"], images=[path, image])
    assert verdicts[0].scores == pytest.approx(verdicts[1].scores)
    assert sum(verdicts[0].scores.values()) == pytest.approx(1)


def test_bf16_stays_close(memes: Path, store: FeatureStore) -> None:
    exact, dataset = (
        predictor(memes, "uniter_tiny", store.meta, regions=True),
        HatefulMemes(memes, "dev_seen"),
    )
    half = Predictor(exact.bundle, device="cpu", precision="bf16")
    difference = (
        half.predict_dataset(dataset, features=store).scores
        - exact.predict_dataset(dataset, features=store).scores
    )
    assert 0 < np.abs(difference).max() < 0.05


def test_int8_stays_close_in_batches_of_any_size(memes: Path, store: FeatureStore) -> None:
    exact, dataset = (
        predictor(memes, "uniter_tiny", store.meta, regions=True),
        HatefulMemes(memes, "dev_seen"),
    )
    expected = exact.predict_dataset(dataset, features=store).scores
    rounded = Predictor(exact.bundle, device="cpu", precision="int8")
    scores = rounded.predict_dataset(dataset, features=store).scores
    assert 0 < np.abs(scores - expected).max() < 0.02
    alone = rounded.predict_dataset(dataset, features=store, batch_size=1).scores
    assert np.allclose(alone, scores, atol=1e-6)
    with pytest.raises(ConfigError, match=r"int8 .*meta"):
        Predictor(exact.bundle, device="meta", precision="int8")


def test_what_the_model_reads_must_be_given(memes: Path, store: FeatureStore) -> None:
    uniter = predictor(memes, "uniter_tiny", store.meta, regions=True)
    with pytest.raises(ConfigError, match=r"Uniter .*regions.* 1 of 1 "):
        uniter.predict(text="hello")
    with pytest.raises(ConfigError, match=r"2 texts .* 1 images"):
        uniter.predict_many(texts=["a", "b"], images=["x.png"])
    with pytest.raises(ConfigError, match=r"Concat .*pixels"):
        predictor(memes, "concat_bert_tiny", image_size=32).predict(text="hello")
    with pytest.raises(ConfigError, match="'fp8'"):
        Predictor(uniter.bundle, precision="fp8")


def test_features_of_another_detector_or_width_are_refused(memes: Path, store: FeatureStore) -> None:
    dataset = HatefulMemes(memes, "dev_seen")
    other = predictor(memes, "uniter_tiny", replace(store.meta, detector="vgattr"), regions=True)
    with pytest.raises(ConfigError, match=r"'world'.*'vgattr'"):
        other.predict_dataset(dataset, features=store)
    wide = predictor(memes, "uniter_tiny", replace(store.meta, feature_dim=7), regions=True)
    with pytest.raises(ConfigError, match=r"features .*\d+ .* 7\."):
        wide.predict_dataset(dataset, features=store)


def test_memes_without_regions_stop_before_the_first_batch(memes: Path, store: FeatureStore) -> None:
    uniter, dataset = (
        predictor(memes, "uniter_tiny", store.meta, regions=True),
        HatefulMemes(memes, "dev_seen"),
    )
    some = GivenRegions({key: store[key] for key in list(store)[:2]})
    lacking = sorted(key for key in dataset.images if key not in some)
    with pytest.raises(MissingFeatures, match=rf"^{len(lacking)} .*: {lacking[0]}, "):
        uniter.predict_dataset(dataset, features=some)


def test_end_to_end_one_picture_comes_with_boxes_or_gets_a_grid(memes: Path) -> None:
    base = predictor(memes, "uniter_tiny", FeatureMeta(feature_dim=128), regions=True)
    torch.manual_seed(0)
    model = EndToEnd(RegionEncoder(resnet_tiny(dilate_last=True)), base.bundle.model).eval()
    text, picture = base.processor.text, next((memes / "img").glob("*.png"))
    processor = Processor(text=text, regions=True, prepare=DetectorTransform(least=32, most=64), grid=[1, 2])
    bundle = Bundle(model=model, task=base.bundle.task, processor=processor)
    by_grid = Predictor(bundle, device="cpu").predict(text="so red", image=picture)
    width, height = image_size(picture)
    halves = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]], np.float32)
    boxes = bare_regions(halves, (width, height))
    by_boxes = Predictor(bundle, device="cpu").predict(text="so red", image=picture, regions=boxes)
    assert by_grid.scores == pytest.approx(by_boxes.scores)
    gridless = replace(bundle, processor=Processor(text=text, regions=True, prepare=processor.prepare))
    with pytest.raises(ConfigError, match=r"EndToEnd .*regions"):
        Predictor(gridless, device="cpu").predict(text="so red", image=picture)


def test_regions_of_one_image_are_encoded_once_for_all_its_texts(
    memes: Path, store: FeatureStore, tmp_path: Path
) -> None:
    examples = [example for example, _ in zip(HatefulMemes(memes, "train"), range(24), strict=False)]
    keys = [example.pairs[0].image for example in examples[:4]]
    lines = [f"q{row},{keys[row % 4]}.png,{one.pairs[0].text!r}" for row, one in enumerate(examples)]
    (tmp_path / "test.csv").write_text("\n".join(["id,image,text", *lines]), encoding="utf-8")
    dataset = Table(tmp_path, "test", columns={"id": "id", "image": "image", "text": "text"})
    lxmert = predictor(memes, "lxmert_tiny", store.meta, regions=True)
    rows: list[int] = []
    lxmert.model.regions.register_forward_hook(lambda _, given, result: rows.append(len(result)))
    assert lxmert.shares_regions
    shared = lxmert.predict_dataset(dataset, features=store, batch_size=6)
    assert sum(rows) == 4  # batches of 6 questions about one image each
    lxmert.model.shares_regions = False
    single = lxmert.predict_dataset(dataset, features=store, batch_size=6)
    assert shared.ids == single.ids == dataset.ids
    np.testing.assert_allclose(shared.scores, single.scores, atol=1e-6)
