from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from diptych.errors import FormatError
from diptych.features import write_store
from diptych.features.shard import read_shard


@pytest.fixture
def store(tmp_path, items, meta):
    return write_store(tmp_path / "store", items(12), meta)


def test_any_arrow_reader_reads_the_files(store):
    with pa.OSFile(str(store.path / "part-00000.arrow")) as file:
        first = pa.ipc.open_file(file).read_all().to_pylist()[2]
    assert first["key"] == "00002"
    assert [region["labels"] for region in first["regions"]] == store["00002"].labels.tolist()


def test_arrays_are_views_of_the_mapped_file(store):
    regions = store["00004"]
    assert not regions.features.flags.owndata
    assert not regions.features.flags.writeable


def test_a_damaged_shard_is_an_error_or_other_numbers_but_no_crash(store):
    shard = store.path / "part-00000.arrow"
    data = shard.read_bytes()
    damaged = Path(f"{shard}.damaged")
    generator = np.random.default_rng(0)
    errors = 0
    for place in generator.choice(len(data), 400, replace=False):
        spoiled = bytearray(data)
        spoiled[place] ^= 0xFF
        damaged.write_bytes(spoiled)
        try:
            _, blocks = read_shard(damaged)
            [block.regions(row) for block in blocks for row in range(len(block.sizes))]
        except FormatError:
            errors += 1
        damaged.unlink()
    assert 0 < errors < 400
