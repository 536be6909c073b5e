"""A miniature data set, read and compared once."""

import json

import pytest

from diptych.audit.sheet import read_sheet
from diptych.audit.twins import find_twins
from diptych.datasets import find_data


@pytest.fixture(scope="session")
def twins(memes):
    return find_twins(read_sheet(memes, find_data(memes)))


@pytest.fixture
def planted(spoiled):
    """The twins of a data set after `plant(split, lines)` has appended records to a split."""

    def plant(**lines):
        for split, records in lines.items():
            with (spoiled / f"{split}.jsonl").open("a") as file:
                file.writelines(f"{json.dumps(record)}\n" for record in records)
        return find_twins(read_sheet(spoiled, find_data(spoiled)))

    return plant
