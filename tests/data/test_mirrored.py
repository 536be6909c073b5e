"""Mirrored pictures: what is drawn, and that pixels, boxes, silhouettes, words and targets agree."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from diptych.data import Collate, DataModule, DetectorTransform, Mirrored, Processor, Sources
from diptych.data.mirrored import swap_sides
from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.tasks.ground import GoldBox
from diptych.types import Batch, Example, FeatureMeta, Inputs, Mention, Pair, Regions

WIDTH, HEIGHT = 40, 20


class Sides:
    """Examples of which every third says a side, and every fifth has no picture."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        text = "the dog on the Left" if index % 3 == 0 else "a leftover brightens"
        pair = Pair(
            image=None if index % 5 == 0 else str(index),
            text=text,
            text_b="right" if index % 3 == 0 else None,
        )
        return Example(id=str(index), pairs=(pair,), target={"left": 1.0, "dog": 0.3})

    def write(self, predictions: Predictions, path: Path) -> None:
        predictions.save(path)


@pytest.mark.parametrize("words", ["skip", "swap", "keep"])
def test_a_share_is_mirrored_and_words_are_treated_as_said(words: str) -> None:
    plain, drawn = Sides(30), Mirrored(Sides(30), share=0.5, words=words)
    seen = [(drawn[epoch * 30 + row], plain[row]) for epoch in range(20) for row in range(30)]
    turned = [(one, own) for one, own in seen if one.pairs[0].mirrored]
    assert all(one == own for one, own in seen if not one.pairs[0].mirrored)
    assert {one.pairs[0].image is None for one, _ in turned} == {False}
    sides = [(one, own) for one, own in turned if own.pairs[0].text_b]
    candidates = [
        own for _, own in seen if own.pairs[0].image and (words != "skip" or not own.pairs[0].text_b)
    ]
    assert 0.4 < len(turned) / len(candidates) < 0.6
    assert bool(sides) == (words != "skip")
    for one, own in turned:
        texts = (one.pairs[0].text, one.pairs[0].text_b)
        if words == "swap" and own.pairs[0].text_b:
            assert texts == ("the dog on the Right", "left")
        else:
            assert texts == (own.pairs[0].text, own.pairs[0].text_b)
        assert one.target == ({"right": 1.0, "dog": 0.3} if words == "swap" else own.target)


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    drawn = Mirrored(Sides(30), words="keep")

    def rows(mirrored: Mirrored, epoch: int) -> tuple[bool, ...]:
        return tuple(mirrored[epoch * 30 + row].pairs[0].mirrored for row in range(30))

    assert rows(drawn, 0) == tuple(drawn[row].pairs[0].mirrored for row in reversed(range(30)))[::-1]
    assert len({rows(drawn.seeded(seed), epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_mentions_move_with_their_words() -> None:
    pair = Pair(
        image="k",
        text="right of Casey and left of Pat",
        text_b="Pat left",
        mentions=(
            Mention(start=9, stop=14, region=0),
            Mention(start=27, stop=30, region=1),
            Mention(start=0, stop=3, region=1, segment=1),
        ),
    )
    other = swap_sides(pair)
    assert (other.text, other.text_b) == ("left of Casey and right of Pat", "Pat right")
    texts = (other.text, other.text_b)
    assert [texts[one.segment][one.start : one.stop] for one in other.mentions] == ["Casey", "Pat", "Pat"]
    assert swap_sides(other) == pair


@pytest.mark.parametrize(("given", "named"), [({"share": 0}, "share 0"), ({"words": "drop"}, "'drop'")])
def test_settings_outside_of_their_range_are_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Mirrored(Sides(3), **given)


class Objects:
    """Two objects of one picture, with silhouettes, whose ends are pixels of it."""

    meta = FeatureMeta(feature_dim=0)

    def __init__(self, turned: bool) -> None:
        boxes = np.array([[0, 2, 9, 12], [25, 0, 45, 19]], np.float32)  # the second leaves the picture
        shapes = np.arange(18, dtype=np.float32).reshape(2, 3, 3) / 18
        if turned:
            # The first column becomes the last one, which is 39.
            boxes = np.array([[30, 2, 39, 12], [-6, 0, 14, 19]], np.float32)
            shapes = shapes[:, :, ::-1]
        self.regions = Regions(
            features=np.zeros((2, 0), np.float32), boxes=boxes, size=(WIDTH, HEIGHT), silhouettes=shapes
        )

    def __getitem__(self, key: str) -> Regions:
        return self.regions

    def __contains__(self, key: str) -> bool:
        return True

    def count(self, key: str) -> int:
        return 2


GOLD = (0, 2, 9, 12)


def seen(example: Example, *, turned: bool) -> Batch:
    """The batch of an example whose picture is mirrored beforehand or not."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    processor = Processor(regions=True, prepare=DetectorTransform(least=HEIGHT, most=WIDTH), whole_image=True)
    sources = Sources(regions=Objects(turned), images={"k": ImageOps.mirror(image) if turned else image})
    return Collate(processor, sources=sources, targets=GoldBox())([example])


def test_a_mirrored_pair_is_the_pair_of_a_mirrored_picture() -> None:
    """Including its gold box, and the region of the whole picture, which stays."""
    pair = Pair(image="k", text="a")
    mirrored = seen(Example(id="a", pairs=(replace(pair, mirrored=True),), target=GOLD), turned=False)
    expected = seen(Example(id="a", pairs=(pair,), target=(30, 2, 39, 12)), turned=True)
    for name in ("boxes", "silhouettes", "mask", "sizes", "resized"):
        one, other = (getattr(batch.inputs.regions, name) for batch in (mirrored, expected))
        torch.testing.assert_close(one, other)
    assert torch.equal(mirrored.inputs.pixels, expected.inputs.pixels)
    torch.testing.assert_close(mirrored.target(), expected.target())
    plain = seen(Example(id="a", pairs=(pair,), target=GOLD), turned=False)
    assert not torch.equal(mirrored.inputs.pixels, plain.inputs.pixels)
    whole = [batch.inputs.regions.boxes[0, 0] for batch in (mirrored, plain)]
    torch.testing.assert_close(*whole)


def test_what_has_no_gold_box_has_none_mirrored() -> None:
    pair = Pair(image="k", text="a", mirrored=True)
    assert seen(Example(id="a", pairs=(pair,)), turned=False).targets is None


class Told:
    """A collator whose batch tells which examples are mirrored."""

    mirrors = True

    def __call__(self, examples: Sequence[Example]) -> Batch:
        return Batch(ids=tuple(f"{one.id} {one.pairs[0].mirrored}" for one in examples), inputs=Inputs())

    def length(self, example: Example) -> int:
        return 1


def test_training_alone_is_mirrored_and_resumes() -> None:
    mirror = {"share": 1, "words": "keep"}
    module = DataModule(train=Sides(10), validate=Sides(4), collate=Told(), batch_size=5, mirror=mirror)
    plan = module.plan(seed=3)
    whole = [batch.ids for batch in module.train_loader(plan, start=0, stop=6)]
    assert [batch.ids for batch in module.train_loader(plan, start=4, stop=6)] == whole[4:]
    assert {key for ids in whole for key in ids} == {f"{row} {row % 5 > 0}" for row in range(10)}
    assert {key for batch in module.validate_loader() for key in batch.ids} == {
        f"{row} False" for row in range(4)
    }


def test_features_and_wrong_pairs_are_not_mirrored() -> None:
    with pytest.raises(ConfigError, match=r"data\.mirror.*pixels"):
        DataModule(train=Sides(3), collate=Collate(Processor(regions=True)), mirror={})
    with pytest.raises(ConfigError, match=r"data\.negatives.*data\.mirror"):
        DataModule(train=Sides(3), collate=Told(), mirror={}, negatives={})
