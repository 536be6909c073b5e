"""Which data set a folder, a bundle or a file says it is."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from diptych.datasets import Data, data_names, find_data, named_data, open_split
from diptych.errors import ConfigError, DiptychError

TABLE = "diptych.datasets.Table"


def test_every_name_is_a_file_of_the_configuration() -> None:
    assert {"hateful_memes", "table", "mami_b"} <= {*data_names()}
    assert named_data("mami_b").settings["columns"]["label"][0] == "shaming"
    assert (named_data("harm_p").train, named_data("harm_p").validate) == ("train_v1", "val_v1")
    with pytest.raises(ConfigError, match=r"'mamib'\. .* 'mami_b'\?"):
        named_data("mamib")


def test_a_name_goes_before_a_node_and_a_node_before_the_layout(memes: Path) -> None:
    node = {"_target_": TABLE, "columns": {"id": "id", "text": "text"}}
    assert find_data(memes).kind.name == "hateful_memes"
    assert find_data(memes, node=node, where="a bundle").why == "a bundle"
    assert find_data(memes, name="harm_c", node=node).settings["images"] == "images/{}"
    assert find_data(memes, name="table", node=node, where="a bundle").node == node  # which has the columns
    assert len(Data(node=node, why="").open(memes, "train")) == len(find_data(memes).open(memes, "train"))


def test_withheld_labels_are_found_beside_a_split(memes: Path) -> None:
    data = find_data(memes)
    assert data.open(memes, "test_seen")[0].target is None
    labeled = data.open_labeled(memes, "test_seen")
    assert set(labeled.truth().values()) == {0, 1}


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": 5},
        {"columns": ["id"]},
        {"columns": {"id": 7}},
        {"columns": {"id": "id", "label": {"a": 1}}},
        {"columns": {"id": "id"}, "values": [1]},
        {"columns": {"id": "id"}, "header": 3},
        {"columns": {"id": "id", "image": "img"}, "images": 3},
        {"columns": {"id": "id"}, "file": "../other/train.jsonl"},
        {"columns": {"id": "id"}, "file": 3},
        {"columns": {"id": "id"}, "separator": 3, "labels": 5},
        {"nonsense": 1},
    ],
)
def test_settings_of_a_stranger_are_one_error(memes: Path, settings: dict[str, Any]) -> None:
    node = {"_target_": TABLE, **settings}
    with pytest.raises(DiptychError):
        open_split(node, memes, "train")
    with suppress(DiptychError):
        Data(node=node, why="a file").splits(memes)
