import json

import numpy as np
import pytest

from diptych.data import Subset, first_images, image_limit
from diptych.datasets import Mix, Table
from diptych.datasets.chosen import ChosenRows
from diptych.datasets.examples import ExampleTable
from diptych.datasets.lxmert import LxmertPretraining
from diptych.errors import ConfigError
from diptych.features import FeatureStore, NamedStores, write_store
from diptych.types import Example, FeatureMeta, Pair, Regions


@pytest.mark.parametrize(
    ("limit", "pretraining", "count"),
    [
        (None, False, None),
        ("tiny", False, 512),
        ("tiny", True, 500),
        ("fast", True, 5000),
        (7, False, 7),
        ("7", False, 7),
    ],
)
def test_limits_have_the_sizes_of_the_original(limit, pretraining, count):
    assert image_limit(limit, pretraining=pretraining) == count


@pytest.mark.parametrize("limit", [0, -3, "tinny", "", "1.5", True, "²"])
def test_other_limits_are_refused(limit):
    with pytest.raises(ConfigError, match="limit"):
        image_limit(limit)


def store(folder, keys):
    regions = Regions(
        features=np.zeros((2, 3), np.float32), boxes=np.array([[0, 0, 1, 1]] * 2, np.float32), size=(9, 9)
    )
    write_store(folder, ((key, regions) for key in keys), FeatureMeta(feature_dim=3))
    return FeatureStore(folder)


def example(key, *images):
    pairs = tuple(Pair(image=image, text=f"text of {key}") for image in images)
    return Example(id=key, pairs=pairs or (Pair(image=None, text="alone"),), target="a")


class Listed(list):
    """A data set without columns."""

    def write(self, predictions, path):
        predictions.save(path)


class Kept:
    """A data set with columns."""

    def __init__(self, examples):
        self.rows = ExampleTable.of(examples)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def write(self, predictions, path):
        predictions.save(path)


EXAMPLES = [
    example("q1", "c"), example("q2", "a"), example("q3"), example("q4", "b", "d"), example("q5", "a"),
    example("q6", "b", ("a", "c")), example("q7", "x"), example("q8", "d"),
]  # fmt: skip


@pytest.mark.parametrize("kind", [Listed, Kept])
@pytest.mark.parametrize(
    ("limit", "ids"),
    [
        (1, "q2 q3 q5"),
        (2, "q2 q3 q5"),
        (3, "q1 q2 q3 q5 q6"),
        (99, "q1 q2 q3 q4 q5 q6 q8"),
    ],
)
def test_examples_of_the_first_images_of_the_store(tmp_path, kind, limit, ids):
    shelf = store(tmp_path / "s", "abcd")
    some = first_images(kind(EXAMPLES), limit, shelf)
    assert [some[row].id for row in range(len(some))] == ids.split()
    whole = kind(EXAMPLES)
    assert first_images(whole, None, shelf) is whole


@pytest.mark.parametrize("kind", [Listed, Kept])
def test_without_a_store_images_count_as_they_come(kind):
    some = first_images(kind(EXAMPLES), 2, None)
    assert [some[row].id for row in range(len(some))] == ["q1", "q2", "q3", "q5"]


def test_a_split_beyond_the_first_images_keeps_its_own_first_ones(tmp_path):
    shelf = store(tmp_path / "s", "abcdefgh")
    some = first_images(Kept([example(key, key) for key in "hgf"]), 2, shelf)
    assert [some[row].id for row in range(len(some))] == ["g", "f"]


def test_every_store_has_its_own_first_images(tmp_path):
    keys = {"coco": ["COCO_val2014_1", "COCO_val2014_2"], "vg": ["1", "2", "3"]}
    records = [{"img_id": key, "sentf": {"vqa": ["a?", "b?"]}} for some in keys.values() for key in some]
    (tmp_path / "mscoco_train.json").write_text(json.dumps(records))
    stores = NamedStores({name: store(tmp_path / name, some) for name, some in keys.items()})
    split = LxmertPretraining(tmp_path, "mscoco_train")
    for dataset, prefix in ((split, ""), (Mix({"x": split}), "x/")):
        some = first_images(dataset, 1, stores)
        assert [some[row].id for row in range(len(some))] == [
            f"{prefix}{key}_vqa_00{number}" for key in ("COCO_val2014_1", "1") for number in (0, 1)
        ]


def test_what_is_left_has_columns(tmp_path):
    rows = ChosenRows(ExampleTable.of(EXAMPLES), np.array([1, 3, 5]))
    subset = Subset(Kept(EXAMPLES), np.array([1, 3, 5]))
    for one in (rows, subset.rows):
        assert one.ids == ("q2", "q4", "q6")
        assert [found.id for found in one] == ["q2", "q4", "q6"]
        assert one[-1].pairs == EXAMPLES[5].pairs
        assert one.pair_count == 5
        assert one.image_keys() == ("a", "b", "c", "d")
        counts = one.text_counts(lambda words: [len(word) for word in words], key="letters")
        assert counts.tolist() == [[len(f"textof{key}") for key in ("q2", "q4", "q4", "q6", "q6")]]
        assert one.longest(np.arange(5)).tolist() == [0, 2, 4]


def test_columns_cross_the_windows_of_a_table():
    many = [example(f"{number}", f"i{number // 3}") for number in range(20_000)]
    rows = ExampleTable.of(many)
    chosen = np.flatnonzero(np.arange(20_000) % 7 == 0)
    some = ChosenRows(rows, chosen)
    assert some.ids == tuple(str(number) for number in chosen)
    assert len(some.image_keys()) == len({number // 3 for number in chosen.tolist()})
    limited = first_images(Kept(many), 6_000, None)
    assert len(limited) == 18_000
    assert limited.rows.ids == tuple(str(number) for number in range(18_000))


def test_a_split_keeps_some_rows(tmp_path):
    (tmp_path / "dev.csv").write_text(
        "id,image,text,label\n" + "".join(f"{n},{n}.png,t{n},a\n" for n in "123")
    )
    columns = {"id": "id", "image": "image", "text": "text", "label": "label"}
    split = Table(tmp_path, "dev", columns=columns)
    assert len(split.images) == 3
    split.keep(np.array([0, 2]))
    assert (split.ids, len(split), split[1].id) == (("1", "3"), 2, "3")
    assert len(split.images) == 2
