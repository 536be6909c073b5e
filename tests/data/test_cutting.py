"""Rows that share one limit of tokens and regions, and texts without special tokens."""

import numpy as np
import pytest
import torch

from diptych.data import Processor, Sources
from diptych.data.cutting import shares
from diptych.data.stream import lengths_of
from diptych.datasets import ExampleTable
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import Example, FeatureMeta, Pair, Regions

WORDS = "red green blue cat dog tree house and or with near on"


class Shelf(dict):
    meta = FeatureMeta(feature_dim=4)

    def count(self, key):
        return len(self[key])


class Table:
    """A data set with columns."""

    def __init__(self, examples):
        self.rows = ExampleTable.of(examples)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def write(self, predictions, path):
        raise AssertionError("these tests write nothing")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vocabulary.txt"
    write_vocabulary(path, learn_vocabulary([WORDS], 100))
    return WordPiece(path)


@pytest.fixture(scope="module")
def shelf():
    random = np.random.default_rng(0)
    boxes = np.array([[0, 0, 5, 5]], np.float32)
    return Shelf(
        {
            str(count): Regions(
                features=random.random((count, 4), np.float32), boxes=boxes.repeat(count, 0), size=(10, 10)
            )
            for count in (1, 3, 12)
        }
    )


def row(words, shelf, pair, **settings):
    processor = Processor(text=words, regions=True, **settings)
    return processor(pair, Sources(regions=shelf))


def test_text_keeps_its_end_and_regions_their_first(words, shelf):
    pair = Pair(image="12", text="red cat near green dog and blue tree")
    cut = row(words, shelf, pair, max_row=12)
    whole = row(words, shelf, pair)
    assert (len(cut.tokens), len(cut.regions)) == (6, 5)  # and the whole image
    assert cut.tokens.ids == (*whole.tokens.ids[:5], words.sep_id)
    assert np.array_equal(cut.regions.features, whole.regions.features[:5])
    # the mean of the whole image counts what was cut off
    rest, count = cut.beyond
    assert count == 7
    torch.testing.assert_close(rest, torch.from_numpy(shelf["12"].features[5:].sum(0)))


def test_a_bare_text_has_no_special_tokens_and_a_limit_of_its_own(words, shelf):
    text = Pair(image=None, text=WORDS)
    bare = row(words, shelf, text, max_row=6, max_tokens=9, bare_texts=True)
    assert len(bare.tokens) == 9
    assert words.cls_id not in bare.tokens.ids
    assert words.sep_id not in bare.tokens.ids
    seen = row(words, shelf, Pair(image="1", text="red cat"), bare_texts=True)
    assert seen.tokens.ids[0] == words.cls_id


def test_two_languages_share_a_segment(words, shelf):
    pair = Pair(image="3", text="red cat", text_b="blue dog")
    one, two = (row(words, shelf, pair, one_segment=choice).tokens for choice in (True, False))
    assert one.ids == two.ids
    assert (set(one.segments), set(two.segments)) == ({0}, {0, 1})


def test_some_text_and_a_region_always_stay():
    assert shares(9, 9, 2) == (2, 1)
    assert shares(1, 0, 0) == (1, 0)


@pytest.mark.parametrize(
    "settings", [{"max_row": 8}, {"bare_texts": True}, {"max_row": 7, "bare_texts": True}]
)
def test_lengths_from_columns_are_those_of_rows(words, shelf, settings):
    texts = ["red cat", WORDS, "dog"]
    pairs = [Pair(image=key, text=text) for key in (None, "1", "3", "12") for text in texts]
    pairs += [Pair(image=None, text="red", text_b=WORDS)]
    table = Table([Example(id=str(number), pairs=(pair,)) for number, pair in enumerate(pairs)])
    processor = Processor(text=words, regions=True, max_tokens=10, max_regions=6, **settings)
    expected = [processor.length(table[index], shelf) for index in range(len(table))]
    assert lengths_of(table, processor, shelf).tolist() == expected
    rows = [processor(pair, Sources(regions=shelf)) for pair in pairs]
    assert [len(one.tokens) + len(one.regions) for one in rows] == expected
