import base64
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from diptych.types import FeatureMeta, Regions

COLUMNS = ["img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"]
COLUMNS += ["num_boxes", "boxes", "features"]
MakeItems = Callable[..., list[tuple[str, Regions]]]


def make_regions(count: int, *, width: int = 8, seed: int = 0, classes: int = 0) -> Regions:
    generator = np.random.default_rng([seed, count])
    corners = generator.uniform(0, 200, (count, 2))
    return Regions(
        features=generator.standard_normal((count, width)).astype(np.float32),
        boxes=np.concatenate([corners, corners + 50], axis=1).astype(np.float32),
        size=(320, 260 + seed % 7),
        labels=generator.integers(0, 1600, count),
        scores=generator.random(count).astype(np.float32),
        attributes=generator.integers(0, 400, count),
        attribute_scores=generator.random(count).astype(np.float32),
        probabilities=generator.random((count, classes)).astype(np.float32) if classes else None,
    )


@pytest.fixture
def regions() -> Callable[..., Regions]:
    return make_regions


@pytest.fixture
def items() -> MakeItems:
    """Images with 0, 1, 2, ... 4 regions in turn, or with `boxes` each."""

    def make(
        images: int, *, boxes: int | None = None, width: int = 8, classes: int = 0
    ) -> list[tuple[str, Regions]]:
        counts = (number % 5 if boxes is None else boxes for number in range(images))
        return [
            (f"{number:05d}", make_regions(count, width=width, seed=number, classes=classes))
            for number, count in enumerate(counts)
        ]

    return make


@pytest.fixture
def meta() -> FeatureMeta:
    return FeatureMeta(feature_dim=8, detector="world", classes=("cat", "dog"))


@pytest.fixture
def same() -> Callable[[Regions, Regions], None]:
    """Asserts that two Regions hold equal numbers of equal types."""

    def check(got: Regions, expected: Regions) -> None:
        assert got.size == expected.size
        for name in Regions.__dataclass_fields__:
            if name != "size":
                np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)

    return check


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder by name."""

    def read(folder: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in walk(folder)}

    def walk(folder: Path) -> Iterator[Path]:
        yield from sorted(folder.iterdir())

    return read


def text(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def make_row(key, regions, **changes):
    """A row as the original extractors make it, with some columns changed."""
    values = {
        "img_id": key,
        "img_h": regions.size[1],
        "img_w": regions.size[0],
        "objects_id": text(regions.labels, "<i8"),
        "objects_conf": text(regions.scores, "<f4"),
        "attrs_id": text(regions.attributes, "<i8"),
        "attrs_conf": text(regions.attribute_scores, "<f4"),
        "num_boxes": len(regions),
        "boxes": text(regions.boxes, "<f4"),
        "features": text(regions.features, "<f4"),
    }
    return values | changes


def write_all_rows(path, rows, *, end="\r\n"):
    """Python's csv module, as the originals use it."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator=end)
        writer.writerows(rows)
    return path


@pytest.fixture
def row():
    return make_row


@pytest.fixture
def write_rows():
    return write_all_rows
