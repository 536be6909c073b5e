import numpy as np
import pytest

from diptych.data import Processor, with_regions
from diptych.errors import MissingFeatures
from diptych.predictions import Predictions
from diptych.types import Example, FeatureMeta, Pair


class Memes(list):
    """A data set that remembers what it wrote."""

    def write(self, predictions, path):
        self.written = predictions.ids


class Shelf(dict):
    meta = FeatureMeta(feature_dim=4)

    def count(self, key):
        return 1


def memes(*keys):
    return Memes(Example(id=f"m{key}", pairs=(Pair(image=key, text="x"),)) for key in keys)


SKIP = Processor(regions=True, missing="skip")


def test_examples_without_regions_are_left_out_with_a_warning(tmp_path):
    dataset = memes("a", "b", "c", None)
    with pytest.warns(UserWarning, match=r"1 of 4 .*: mb\."):
        rest = with_regions(dataset, SKIP, Shelf.fromkeys("ac", 0))
    assert [rest[index].id for index in range(len(rest))] == ["ma", "mc", "mNone"]
    assert isinstance(rest.indices, np.ndarray)
    rest.write(Predictions(ids=("ma",), answers=("x",)), tmp_path / "x.csv")
    assert dataset.written == ("ma",)


def test_a_data_set_stays_as_it_is_where_nothing_is_to_be_skipped():
    dataset = memes("a", "b")
    assert with_regions(dataset, SKIP, Shelf.fromkeys("ab", 0)) is dataset
    assert with_regions(dataset, SKIP, None) is dataset
    assert with_regions(dataset, Processor(regions=True), Shelf()) is dataset


def test_nothing_left_is_an_error():
    with pytest.raises(MissingFeatures, match=r"^2 image.*: a, b\."):
        with_regions(memes("a", "b"), SKIP, Shelf())
