from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.features.originals import ORIGINALS, make_row, write_all_rows

from diptych.files import MARK
from diptych.types import FeatureMeta, Regions

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
    """Every file of a folder by name, but for the mark of an export; or a file by nothing."""

    def read(path: Path) -> dict[str, bytes]:
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != MARK)
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in files or [path]}

    return read


@pytest.fixture
def row():
    return make_row


@pytest.fixture
def write_rows():
    return write_all_rows


@pytest.fixture
def original(tmp_path, items) -> Callable[..., Path]:
    """Writes a few images in a format, as the original scripts do: `original("mmf-lmdb", images)`."""

    def make(name, images=None) -> Path:
        path = tmp_path / f"original-{name}"  # no ending, so that only the content can be recognized
        ORIGINALS[name](path, items(7, boxes=3, classes=5) if images is None else images)
        return path

    return make
