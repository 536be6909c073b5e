import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data import Collate, DetectorTransform, Processor, Sources
from diptych.errors import ConfigError
from diptych.tasks import ClassIndex
from diptych.text import WordPiece, write_vocabulary
from diptych.types import Example, FeatureMeta, Mention, Pair, Regions

WORDS = ("[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "[PAD]")  # padding is not always 0


class Shelf(dict):
    meta = FeatureMeta(feature_dim=3)

    def count(self, key: str) -> int:
        return len(self[key])


def example(number: int, text: str, target: str | None = "benign") -> Example:
    return Example(id=str(number), pairs=(Pair(image=str(number), text=text),), target=target)


@pytest.fixture
def collate(tmp_path: Path) -> Collate:
    write_vocabulary(tmp_path / "vocab.txt", WORDS)
    shelf = Shelf(
        {
            str(count): Regions(
                features=np.full((count, 3), count, np.float16),
                boxes=np.tile(np.array([0, 0, 5, 5], np.float32), (count, 1)),
                size=(10, 5),
            )
            for count in (0, 1, 3)
        }
    )
    processor = Processor(text=WordPiece(tmp_path / "vocab.txt"), regions=True)
    return Collate(processor, sources=Sources(regions=shelf), targets=ClassIndex(("benign", "hateful")))


def test_rows_are_padded_to_the_longest_and_masked(collate: Collate) -> None:
    batch = collate([example(1, "a"), example(3, "a b a b", "hateful")])
    assert batch.ids == ("1", "3")
    assert batch.targets.tolist() == [0, 1]
    assert batch.inputs.text.ids.shape == (2, 6)
    assert batch.inputs.text.ids[0].tolist() == [1, 4, 2, 6, 6, 6]
    assert batch.inputs.text.mask.sum(1).tolist() == [3, 6]
    assert batch.inputs.regions.mask.tolist() == [[True, False, False], [True] * 3]
    assert batch.inputs.regions.features.dtype == torch.float32
    assert batch.inputs.regions.features[0, 1:].abs().sum() == 0
    assert batch.inputs.regions.boxes[1, 2].tolist() == [0, 0, 0.5, 1]
    assert batch.inputs.regions.sizes.tolist() == [[10, 5], [10, 5]]


def test_a_batch_without_any_region_keeps_its_shape(collate: Collate) -> None:
    regions = collate([example(0, "a")]).inputs.regions
    assert regions.features.shape == (1, 1, 3)
    assert not regions.mask.any()


def test_mentions_are_padded_with_nothing(collate: Collate) -> None:
    named = Pair(image="3", text="a", mentions=(Mention(start=0, stop=1, region=2),))
    batch = collate([Example(id="0", pairs=(named,), target="benign"), example(1, "a b")])
    assert batch.inputs.text.mentions.tolist() == [[-1, 2, -1, -1], [-1] * 4]
    assert collate([example(1, "a b")]).inputs.text.mentions is None


def test_a_text_without_image_stands_beside_others(collate: Collate) -> None:
    alone = Example(id="0", pairs=(Pair(image=None, text="a"),), target="benign")
    assert collate([example(3, "a"), alone]).inputs.regions.mask.tolist() == [[True] * 3, [False] * 3]


def test_unlabeled_examples_have_no_targets(collate: Collate) -> None:
    assert collate([example(1, "a"), example(3, "b", None)]).targets is None


def test_collate_travels_to_workers(collate: Collate) -> None:
    again = pickle.loads(pickle.dumps(collate))
    assert torch.equal(
        again([example(3, "a b")]).inputs.text.ids, collate([example(3, "a b")]).inputs.text.ids
    )


def test_length_counts_tokens_and_regions(collate: Collate) -> None:
    assert collate.length(example(3, "a b")) == 4 + 3


def test_labels_of_regions_travel_on_demand(collate: Collate) -> None:
    shelf = collate.sources.regions
    for count in (1, 3):
        shelf[str(count)] = replace(
            shelf[str(count)],
            labels=np.arange(count),
            scores=np.full(count, 0.5, np.float32),
            probabilities=np.full((count, 2), 0.5, np.float16),
            attributes=np.arange(count) if count == 3 else None,
        )
    examples = [example(1, "a"), example(3, "b"), example(0, "a")]
    assert collate(examples).inputs.regions.labels is None
    collate.processor.labels = True
    regions = collate(examples).inputs.regions
    assert regions.labels.tolist() == [[0, -1, -1], [0, 1, 2], [-1, -1, -1]]
    assert regions.scores.tolist() == [[0.5, 0, 0], [0.5] * 3, [0] * 3]
    assert regions.probabilities.shape == (3, 3, 2)
    assert regions.probabilities.dtype == torch.float32
    assert regions.attributes is None, "not all images have them"
    assert regions.attribute_scores is None


def test_pictures_of_several_shapes_are_padded_right_and_below(tmp_path: Path) -> None:
    images, shelf = {}, Shelf()
    for key, size in (("wide", (40, 20)), ("high", (20, 30))):
        Image.new("RGB", size, "white").save(tmp_path / f"{key}.png")
        images[key] = tmp_path / f"{key}.png"
        boxes = np.array([[0, 0, 10, 10]], np.float32)
        shelf[key] = Regions(features=np.ones((1, 3), np.float32), boxes=boxes, size=size)
    prepare = DetectorTransform(least=10, most=100, mean=[0, 0, 0])
    collate = Collate(Processor(regions=True, prepare=prepare), sources=Sources(shelf, images))
    inputs = collate([Example(id=key, pairs=(Pair(image=key, text=""),)) for key in images]).inputs
    assert inputs.pixels.shape == (2, 3, 15, 20)
    assert inputs.regions.sizes.tolist() == [[40, 20], [20, 30]]
    assert inputs.regions.resized.tolist() == [[20, 10], [10, 15]]
    assert inputs.regions.features.shape == (2, 1, 0)
    real = torch.zeros(2, 3, 15, 20)
    real[0, :, :10], real[1, ..., :10] = 255, 255
    assert torch.equal(inputs.pixels, real)


def test_regions_without_pictures_are_not_resized(collate: Collate) -> None:
    assert collate([example(1, "a")]).inputs.regions.resized is None


def test_weights_are_there_only_where_some_weight_is_not_one(collate: Collate) -> None:
    plain = [example(1, "a"), example(3, "b")]
    assert collate(plain).weights is None
    weights = collate([plain[0], replace(plain[1], weight=0.25)]).weights
    assert weights is not None
    assert weights.tolist() == [1.0, 0.25]


@pytest.mark.parametrize("most", [1, 2, 4, 5])
def test_the_mean_of_the_whole_image_counts_regions_that_were_cut_off(tmp_path, most):
    generator = np.random.default_rng(0)
    write_vocabulary(tmp_path / "vocab.txt", WORDS)
    shelf = Shelf(
        {
            str(number): Regions(
                features=generator.normal(size=(count, 3)).astype(np.float16),
                boxes=np.tile(np.array([[0, 0, 9, 9]], np.float32), (count, 1)),
                size=(20, 10),
            )
            for number, count in enumerate((4, 0, 2, 3))
        }
    )
    processor = Processor(text=WordPiece(tmp_path / "vocab.txt"), regions=True, max_regions=most)
    images = ("0", "1", "2", "3", ("0", "3"), None)
    pairs = [Pair(image=image, text="a") for image in images]
    examples = [Example(id=str(number), pairs=(pair,)) for number, pair in enumerate(pairs)]
    found = Collate(processor, sources=Sources(regions=shelf))(examples).inputs.regions
    whole = [
        np.concatenate([shelf[key].features for key in image or ()] or [np.zeros((1, 3))]) for image in images
    ]
    whole = [one if len(one) else np.zeros((1, 3)) for one in whole]
    expected = torch.from_numpy(np.stack([one.astype(np.float32).mean(0) for one in whole]))
    torch.testing.assert_close(found.mean(found.features), expected)
    assert (found.beyond is None) is (most >= 4)
    hidden = found.mask & (torch.arange(found.mask.shape[1]) == 0)  # pre-training hides the best of each
    shown = replace(found, hidden=hidden).mean(found.features)
    torch.testing.assert_close(shown[0], torch.from_numpy(whole[0][1:].astype(np.float32).mean(0)))


class Listed(list):
    def write(self, predictions: object, path: object) -> None:
        raise AssertionError("these tests write nothing")


def test_aspects_come_from_the_headers_of_pictures(tmp_path):
    for name, size in (("wide", (9, 5)), ("high", (5, 9)), ("square", (5, 5))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    images = {name: tmp_path / f"{name}.png" for name in ("wide", "high", "square")}
    keys = ["high", "wide", None, "high", "square"]
    examples = Listed(Example(id=str(n), pairs=(Pair(image=key, text="x"),)) for n, key in enumerate(keys))
    collate = Collate(Processor(), sources=Sources(images=images))
    assert collate.aspects(examples).tolist() == [1, 0, 0, 1, 0]
    with pytest.raises(ConfigError, match=r"data\.aspects"):
        Collate(Processor()).aspects(examples)
