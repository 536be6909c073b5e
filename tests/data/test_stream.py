"""Columns say of a data set what its examples say one by one."""

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.data import Collate, DataModule, Processor, Sources, require_sources
from diptych.data.stream import count_cut, different_targets, ids_of, key_windows, lengths_of, targets_of
from diptych.datasets import Mix, Table, examples
from diptych.errors import ConfigError, MissingFeatures
from diptych.text import CachedTokenizer, WordPiece, write_vocabulary
from diptych.types import Dataset, Example, FeatureMeta, Regions

TEXTS = (
    "a red boat",
    "",
    "  two\tspaces\u00a0and  tabs ",
    "what is it ? ?",
    "\u00e9t\u00e9 x\u0301 \u0301 \u65e5\u672c [SEP] [MASK]x " * 3,
    "z" * 101,
    "sun " * 40,
    "\u03a3\u03a3 \u0130 \u200b\u00ad a-b,c",
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "##e", "red", "boat")
COLUMNS = {"id": "id", "image": "image", "text": "text", "text_b": "more", "label": "label"}


class Shelf:
    """Regions of most images, as many as the last digit of the key says."""

    meta = FeatureMeta(feature_dim=1)

    def __getitem__(self, key: str) -> Regions:
        raise AssertionError("counting reads no features")

    def __contains__(self, key: str) -> bool:
        return not key.endswith("7")

    def count(self, key: str) -> int:
        return int(key[-1])


@pytest.fixture
def text(tmp_path: Path) -> WordPiece:
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    return WordPiece(tmp_path / "vocabulary.txt")


@pytest.fixture(params=["memory", "disk", "limit", "mix"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    if request.param != "memory":
        monkeypatch.setattr(examples, "IN_MEMORY", 0)
        monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    lines = [
        {
            "id": number,
            "image": f"img/{number % 9}.png",
            "text": TEXTS[number % len(TEXTS)],
            "more": TEXTS[number * 3 % len(TEXTS)],
            "label": ["no", "yes"][number % 3 == 0],
        }
        for number in range(40)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = Table(tmp_path, "train", columns=COLUMNS, limit=17 if request.param == "limit" else None)
    if request.param != "mix":
        return whole
    short = Table(tmp_path, "train", columns={**COLUMNS, "text_b": None}, limit=9)
    return Mix({"all": whole, "some": short}, stores={"some": "all"})


class Listed:
    """The same examples without columns."""

    def __init__(self, dataset: Dataset) -> None:
        self.examples = [dataset[index] for index in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: object, path: object) -> None:
        raise AssertionError("these tests write nothing")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_tokens": 9},
        {"max_tokens": 4, "text_b": "[MASK]", "text_end": "? [MASK]"},
        {"regions": True, "max_regions": 5, "max_tokens": 20},
    ],
)
def test_lengths_are_those_of_the_examples(dataset: Dataset, text: WordPiece, settings: dict) -> None:
    processor, regions = Processor(text=text, **settings), Shelf()
    expected = [processor.length(example, regions) for example in Listed(dataset).examples]
    for tokenizer in (text, text, CachedTokenizer(text, {})):  # the second time from the cache
        processor.text = tokenizer
        assert lengths_of(dataset, processor, regions).tolist() == expected
    assert lengths_of(Listed(dataset), processor, regions).tolist() == expected


@pytest.mark.parametrize("settings", [{"max_tokens": 9}, {"max_tokens": 5, "text_end": "? [MASK]"}])
def test_cut_texts_are_counted(dataset: Dataset, text: WordPiece, settings: dict) -> None:
    processor, whole = (
        Processor(text=text, **settings),
        Processor(text=text, **settings | {"max_tokens": 999}),
    )
    longer = [whole.length(example) > processor.max_tokens for example in Listed(dataset).examples]
    assert sum(longer) > 0
    assert count_cut(dataset, processor) == count_cut(Listed(dataset), processor) == sum(longer)
    assert count_cut(dataset, whole) == count_cut(dataset, Processor(regions=True)) == 0


def test_columns_say_what_examples_say(dataset: Dataset) -> None:
    listed = Listed(dataset)
    assert list(dataset.rows) == listed.examples
    assert [dataset.rows[index] for index in range(len(dataset))] == listed.examples
    assert ids_of(dataset) == ids_of(listed)
    assert list(targets_of(dataset)) == list(targets_of(listed))
    assert [key for keys in key_windows(dataset) for key in keys] == next(key_windows(listed))
    assert [one.target for window in different_targets(dataset) for one in window] == ["yes", "no"]
    assert dataset.rows.classes().tolist() == [example.target == "no" for example in listed.examples]


def test_a_run_takes_the_same_batches(dataset: Dataset, text: WordPiece) -> None:
    collate = Collate(Processor(text=text))
    orders = []
    for one in (dataset, Listed(dataset)):
        data = DataModule(train=one, validate=one, collate=collate, batch_size=3, balance="epoch")
        plan = data.plan(seed=3)
        orders.append([plan.portion(position).indices for position in range(2 * plan.steps_per_epoch)])
        orders.append([batch.ids for batch in data.validate_loader()])
        assert len(data.targets) == len(dataset)
    assert orders[:2] == orders[2:]


def test_images_without_regions_are_named(dataset: Dataset) -> None:
    processor, needs = Processor(regions=True), frozenset({"regions"})
    with pytest.raises(MissingFeatures, match=r"^1 image"):
        require_sources(needs, processor, Sources(regions=Shelf()), dataset, Listed(dataset))


def test_a_damaged_cache_of_lengths_is_made_again(
    tmp_path: Path, text: WordPiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "IN_MEMORY", 0)
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.csv").write_text("id,text\n1,a red boat\n2,a\n")
    dataset = Table(tmp_path, "train", columns={"id": "id", "text": "text"})
    processor = Processor(text=text)
    found = lengths_of(dataset, processor)
    kept = [
        path for path in (tmp_path / "cache/examples").iterdir() if "-" in path.name and path.suffix == ""
    ]
    assert len(kept) == 1
    whole = kept[0].read_bytes()
    for damaged in (b"", b"x", whole[:-1], whole + b"x"):
        kept[0].write_bytes(damaged)
        assert np.array_equal(lengths_of(dataset, processor), found)
        assert kept[0].read_bytes() == whole


def test_weights_and_balance_exclude_each_other(tmp_path: Path, text: WordPiece) -> None:
    (tmp_path / "train.csv").write_text("id,text,label\n1,a,x\n2,b,y\n")
    one = Table(tmp_path, "train", columns={"id": "id", "text": "text", "label": "label"})
    mix = Mix({"a": one, "b": one}, weights={"b": 2})
    data = DataModule(train=mix, collate=Collate(Processor(text=text)), balance="fixed")
    with pytest.raises(ConfigError):
        data.plan(seed=0)
