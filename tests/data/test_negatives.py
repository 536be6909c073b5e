"""Wrong pairs: how many, of what, and the same after a resume."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from diptych.data import DataModule, Negatives
from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.types import Batch, Example, Inputs, Pair


class Captions:
    """Two captions of every image; the second one is `a picture` for a third of them."""

    def __init__(self, images: int, second: str | None = None) -> None:
        self.examples = [
            Example(
                id=f"{image}#{number}",
                pairs=(
                    Pair(
                        image=f"i{image}",
                        text="a picture" if number and image % 3 == 0 else f"text {image}.{number}",
                        text_b=second,
                    ),
                ),
                target=1,
            )
            for image in range(images)
            for number in range(2)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: Predictions, path: Path) -> None:
        predictions.save(path)


@pytest.mark.parametrize("exchange", ["text", "image", "either"])
def test_a_share_of_the_pairs_is_wrong_and_never_true_by_accident(exchange: str) -> None:
    captions = Captions(20)
    drawn = Negatives(captions, share=0.5, exchange=exchange)
    examples = [drawn[index] for index in range(10 * len(captions))]  # ten epochs
    wrong = [(number, one) for number, one in enumerate(examples) if one.target == 0]
    assert 0.4 < len(wrong) / len(examples) < 0.6
    sides = set()
    for number, example in wrong:
        own, pair = captions[number % len(captions)].pairs[0], example.pairs[0]
        assert example.id == captions[number % len(captions)].id
        text, image = pair.text != own.text, pair.image != own.image
        assert text != image  # exactly one side is foreign
        sides.add("text" if text else "image")
        # The wrong text is no caption of the image, though some images have one in common.
        true = {one.pairs[0].text for one in captions.examples if one.pairs[0].image == pair.image}
        assert pair.text not in true
    assert sides == ({"text", "image"} if exchange == "either" else {exchange})


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    captions, count = Captions(20), 40

    def targets(drawn: Negatives, epoch: int) -> list[int]:
        return [drawn[epoch * count + row].target for row in range(count)]

    drawn = Negatives(captions)
    again = [drawn[index].target for index in reversed(range(count))][::-1]
    assert targets(drawn, 0) == again
    assert len({tuple(targets(drawn.seeded(seed), epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def collated(examples: Sequence[Example]) -> Batch:
    return Batch(ids=tuple(f"{one.id} {one.pairs[0].text} {one.target}" for one in examples), inputs=Inputs())


class Collated:
    def __call__(self, examples: Sequence[Example]) -> Batch:
        return collated(examples)

    def length(self, example: Example) -> int:
        return 1


def test_a_resumed_run_sees_the_same_pairs_and_validation_never_changes() -> None:
    module = DataModule(
        train=Captions(10), validate=Captions(4), collate=Collated(), batch_size=8, negatives={"share": 0.5}
    )
    plan = module.plan(seed=3)
    whole = [batch.ids for batch in module.train_loader(plan, start=0, stop=7)]
    assert [batch.ids for batch in module.train_loader(plan, start=4, stop=7)] == whole[4:]
    first, second = (sorted(key for ids in whole[3 * one : 3 * one + 3] for key in ids) for one in (0, 1))
    assert [key.split()[0] for key in first] == [key.split()[0] for key in second]
    assert first != second  # drawn anew
    seen = [[batch.ids for batch in module.validate_loader()] for _ in range(2)]
    assert seen[0] == seen[1]
    shown = {key.split()[0]: int(key.split()[-1]) for ids in seen[0] for key in ids}
    assert shown == module.targets
    assert set(shown.values()) == {0, 1}


def test_training_pairs_stay_for_hard_negatives() -> None:
    module = DataModule(
        train=Captions(10), validate=Captions(8), collate=Collated(), negatives={"train": False, "share": 1}
    )
    [batch] = module.train_loader(module.plan(seed=0), start=0, stop=1)
    assert all(key.endswith(" 1") for key in batch.ids)
    assert set(module.targets.values()) == {0}


def test_only_the_translation_is_exchanged() -> None:
    captions = Captions(3, second="satz")
    captions.examples = [
        Example(id=str(row), pairs=(Pair(image=None, text=f"s{row}", text_b=f"t{row}"),), target=1)
        for row in range(6)
    ]
    drawn = Negatives(captions, share=1, exchange="text_b")
    for row in range(6):
        pair = drawn[row].pairs[0]
        assert pair.text == f"s{row}"
        assert pair.text_b not in (None, f"t{row}")


@pytest.mark.parametrize(
    ("given", "named"),
    [({"share": 0}, "share 0"), ({"share": 1.5}, "1.5"), ({"exchange": "regions"}, "regions")],
)
def test_settings_outside_of_their_range_are_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Negatives(Captions(3), **given)


def test_one_image_has_no_wrong_text() -> None:
    with pytest.raises(ConfigError, match="two different images"):
        Negatives(Captions(1))
    same = Captions(2)
    same.examples = [
        Example(id=one.id, pairs=(Pair(image=one.pairs[0].image, text="x"),), target=1)
        for one in same.examples
    ]
    with pytest.raises(ConfigError, match="0#0"):
        Negatives(same, share=1)[0]
    with pytest.raises(ConfigError, match="text_b"):
        Negatives(Captions(2), share=1, exchange="text_b")[0]
    two = Captions(2)
    two.examples = [Example(id="d", pairs=one.pairs * 2, target=1) for one in two.examples]
    with pytest.raises(ConfigError, match="2 pairs"):
        Negatives(two)[0]


def test_draws_are_spread_over_all_other_examples() -> None:
    drawn = Negatives(Captions(6), share=1)
    texts = [drawn[12 * epoch].pairs[0].text for epoch in range(60)]
    assert set(texts) == {f"text {image}.{number}" for image in range(1, 6) for number in range(2)} - {
        "text 3.1"
    }
    assert np.unique(texts, return_counts=True)[1].max() < 20
