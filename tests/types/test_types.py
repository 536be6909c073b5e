import dataclasses
import pickle
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from diptych.errors import ConfigError, FormatError
from diptych.types import (
    Batch,
    Encoding,
    Example,
    FeatureMeta,
    Inputs,
    Outcome,
    PaddedRegions,
    PaddedText,
    Pair,
    Regions,
)


def regions(count: int = 3, **changes: Any) -> Regions:
    boxes = np.tile(np.float32([10, 20, 30, 60]), (count, 1))
    values = {
        "features": np.arange(count * 4, dtype=np.float32).reshape(count, 4),
        "boxes": boxes,
        "size": (100, 80),
        "labels": np.arange(count),
        "scores": np.linspace(1, 0.5, count, dtype=np.float32),
    }
    return Regions(**(values | changes))


def inputs(rows: int = 2) -> Inputs:
    mask = torch.ones(rows, 3, dtype=torch.bool)
    text = PaddedText(
        ids=torch.arange(rows * 3).reshape(rows, 3), mask=mask, segments=torch.zeros(rows, 3).long()
    )
    padded = PaddedRegions(
        features=torch.rand(rows, 3, 4),
        boxes=torch.rand(rows, 3, 4),
        mask=mask,
        image_index=torch.zeros(rows, 3).long(),
        sizes=torch.ones(rows, 2),
    )
    return Inputs(text=text, regions=padded)


def batch(rows: int = 2, pairs: int = 1) -> Batch:
    ids = tuple(str(row) for row in range(rows // pairs))
    return Batch(ids=ids, inputs=inputs(rows), targets=torch.arange(len(ids)), pairs=pairs)


def test_regions_count_themselves_and_keep_the_best() -> None:
    best = regions(5).first(2)
    assert len(best) == 2
    np.testing.assert_array_equal(best.labels, [0, 1])
    np.testing.assert_array_equal(best.features, regions(5).features[:2])
    assert best.attributes is None
    three = regions(3)
    assert three.first(3) is three


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((2, 4), np.float32)}, "3 boxes .* 2 features"),
        ({"labels": np.arange(4)}, "3 boxes .* 4 labels"),
        ({"probabilities": np.ones((1, 7), np.float32)}, "3 boxes .* 1 probabilities"),
    ],
)
def test_regions_must_agree_in_number(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the shape checker
    with pytest.raises(FormatError, match=message):
        regions(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.float32([[1] * 4, [np.nan] * 4, [1] * 4])}, "region 1 .* features"),
        ({"scores": np.float32([1, 1, np.inf])}, "region 2 .* scores"),
        ({"boxes": np.float32([[0, 0, 1, 1], [0, 0, 1, np.nan], [0, 0, 1, 1]])}, "region 1 .* boxes"),
        ({"boxes": np.float32([[0, 0, 1, 1], [5, 0, 1, 1], [0, 0, 1, 1]])}, "box 1 .*: 5.0 0.0 1.0 1.0"),
        ({"boxes": np.float32([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 82]])}, "box 2 .* 82.0; .* 100 x 80"),
        ({"boxes": np.float32([[-2, 0, 1, 1]] * 3)}, "box 0 .*: -2.0 .* 100 x 80"),
        ({"size": (0, 80)}, " 0 x 80; "),
    ],
)
def test_verify_names_the_first_wrong_region(changes: dict[str, Any], message: str) -> None:
    broken = regions(**changes)
    with pytest.raises(FormatError, match=message):
        broken.verify()


def test_verify_accepts_what_detectors_write() -> None:
    regions().verify()
    regions(0).verify()
    edge = np.float32([[-1, -1, 101, 81], [0, 0, 0, 0], [99, 79, 100, 80]])
    regions(boxes=edge).verify()
    half = regions().features.astype(np.float16)
    regions(features=half).verify()


def test_regions_without_any_region_are_allowed() -> None:
    assert len(regions(0)) == 0
    assert len(regions(0).first(5)) == 0


def test_map_and_to_reach_every_tensor_and_leave_the_rest() -> None:
    moved = batch().to("meta")
    assert moved.ids == ("0", "1")
    assert moved.inputs.text.ids.is_meta
    assert moved.targets.is_meta
    doubled = batch().map(lambda tensor: tensor + tensor)
    torch.testing.assert_close(doubled.targets, batch().targets * 2)
    assert doubled.inputs.pixels is None
    assert type(doubled) is Batch


def test_length_is_the_number_of_rows_or_examples() -> None:
    assert len(inputs(5)) == 5
    assert len(Inputs(vectors=torch.zeros(7, 2))) == 7
    assert len(batch(6, pairs=2)) == 3


def test_group_folds_rows_into_examples() -> None:
    rows = torch.arange(12).reshape(6, 2)
    grouped = batch(6, pairs=2).group(rows)
    assert grouped.shape == (3, 2, 2)
    torch.testing.assert_close(grouped[1], rows[2:4])


def test_types_are_frozen() -> None:
    for value in (regions(), Pair(image="a", text="b"), Example(id="1", pairs=()), batch(), inputs()):
        name = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_batches_travel_through_loader_workers() -> None:
    copy = pickle.loads(pickle.dumps(batch()))
    torch.testing.assert_close(copy.inputs.regions.boxes.shape, batch().inputs.regions.boxes.shape)
    loader = DataLoader([0, 1, 2], batch_size=3, num_workers=1, collate_fn=collate)
    (received,) = list(loader)
    assert received.ids == ("0", "1", "2")
    torch.testing.assert_close(received.targets, torch.arange(3))


def collate(rows: list[int]) -> Batch:
    return batch(len(rows))


def test_outcome_and_encoding_are_trees() -> None:
    outcome = Outcome(loss=torch.tensor(1.0), logits=torch.zeros(2, 3), logs={"loss": torch.tensor(2.0)})
    assert outcome.map(lambda tensor: tensor + 1).logs["loss"] == 3
    encoding = Encoding(pooled=torch.zeros(2, 4)).map(lambda tensor: tensor.to(torch.bfloat16))
    assert (encoding.pooled.dtype, encoding.text) == (torch.bfloat16, None)


def test_feature_meta_survives_json() -> None:
    meta = FeatureMeta(feature_dim=2048, detector="vgattr", classes=("cat", "dog"), count=3, checksum="ab")
    assert isinstance(meta.as_dict()["classes"], list)
    assert FeatureMeta.from_dict(meta.as_dict()) == meta


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_dim": 1024}, r" 1024 .* 2048\."),
        ({"detector": "other"}, "'other'; .*'vgattr'"),
        ({"classes": ("dog", "cat")}, "class names"),
    ],
)
def test_other_features_are_refused(changes: dict[str, Any], message: str) -> None:
    trained = FeatureMeta(feature_dim=2048, detector="vgattr", classes=("cat", "dog"))
    with pytest.raises(ConfigError, match=rf"store: .*{message}"):
        dataclasses.replace(trained, **changes).require_like(trained, where="store")


def test_like_features_are_accepted() -> None:
    trained = FeatureMeta(feature_dim=2048, detector="vgattr", classes=("cat", "dog"))
    for changes in (
        {"detector": "unknown"},
        {"classes": ()},
        {"dtype": "float16", "count": 9},
        {"box_rule": "36"},
    ):
        dataclasses.replace(trained, **changes).require_like(trained, where="store")
        trained.require_like(dataclasses.replace(trained, **changes), where="store")


def test_several_targets_go_by_name_and_move_with_the_batch() -> None:
    named = dataclasses.replace(batch(), targets={"ids": torch.arange(2), "mask": torch.ones(2, 3)})
    moved = named.to("meta")
    assert {name: one.device.type for name, one in moved.targets.items()} == {"ids": "meta", "mask": "meta"}  # type: ignore[union-attr]
    assert named.target("ids").tolist() == [0, 1]
    assert batch().target().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        ({"ids": torch.arange(2)}, None),
        ({"ids": torch.arange(2)}, "mask"),
        (torch.arange(2), "ids"),
        (None, None),
    ],
)
def test_a_target_that_is_not_there_is_named(targets: Any, name: str | None) -> None:
    with pytest.raises(ConfigError, match=name):
        dataclasses.replace(batch(), targets=targets).target(name)
