import os
import random

import lmdb
import pytest

from diptych.errors import FormatError
from diptych.features.pages import Pages


@pytest.fixture
def database(tmp_path):
    """Branches, leaves, values within a page and on pages of their own; written, changed and deleted."""
    generator = random.Random(0)
    values = {f"{number:05d}".encode() * 9: generator.randbytes(number % 60 * 40) for number in range(600)}
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 26) as environment:
        for part in (values, dict(list(values.items())[::3])):
            with environment.begin(write=True) as transaction:
                for key, value in part.items():
                    transaction.put(key, value)
        with environment.begin(write=True) as transaction:
            for key in [*values][5::50]:
                transaction.delete(key)
                del values[key]
    return tmp_path / "db" / "data.mdb", values


def read(path):
    with path.open("rb") as file:
        pages = Pages(path, file.fileno())
        return {key: pages.get(key) for key in pages.places}, pages.damage


def test_keys_and_values_are_those_of_the_library(database):
    path, values = database
    got, damage = read(path)
    assert (got, damage) == (values, [])
    assert [*got] == sorted(values)


def test_an_empty_database_has_no_keys(tmp_path):
    lmdb.open(str(tmp_path / "db"), map_size=1 << 20).close()
    assert read(tmp_path / "db" / "data.mdb") == ({}, [])


@pytest.mark.parametrize("how", ["zeros", "ones", "noise", "bit", "other page"])
def test_no_damage_gives_wrong_keys_or_another_error(database, how):
    path, values = database
    whole = path.read_bytes()
    generator = random.Random(how)
    for _ in range(40):
        data, start = bytearray(whole), generator.randrange(len(whole) // 4096) * 4096
        other = generator.randrange(len(whole) // 4096) * 4096
        place = start + generator.randrange(64)
        page = slice(start, start + 4096)
        if how == "bit":
            data[place] ^= 1 << generator.randrange(8)
        else:
            data[page] = {
                "zeros": bytes(4096),
                "ones": b"\xff" * 4096,
                "noise": generator.randbytes(4096),
                "other page": whole[other : other + 4096],
            }[how]
        path.write_bytes(data)
        try:
            got, damage = read(path)
        except FormatError:
            continue
        if how in ("zeros", "ones"):
            assert got == values or damage or len(got) == len(values)
        assert len(got) <= 2 * len(values)


def test_a_damaged_leaf_costs_its_own_keys_alone(database):
    path, values = database
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        place = Pages(path, file.fileno()).places[min(values)]
    number = place.start // 4096
    data[number * 4096 : (number + 1) * 4096] = bytes(4096)
    path.write_bytes(data)
    got, damage = read(path)
    assert 500 < len(got) < len(values)
    [line] = damage
    assert line.startswith(f"page {number}: ")


@pytest.mark.parametrize("size", [0, 100, 4096, 9000, -4096])
def test_a_file_that_is_cut_off_is_named(database, size):
    path, _ = database
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    with pytest.raises(FormatError, match=r"data.mdb: "):
        read(path)
