"""A golden that nobody compares with proves nothing."""

import re
from fnmatch import fnmatch
from pathlib import Path

# Goldens of what is not built yet; what is built leaves the list.
PLANNED: tuple[str, ...] = ()
TESTS = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
CLAIMED = {name for path in TESTS for name in re.findall(r'"([\w-]+(?:-\*)?)["/]', path.read_text())}


def test_every_golden_is_claimed_by_a_parity_test_or_planned(goldens):
    names = {path.name.split(".")[0] for path in goldens.iterdir() if path.name != "README.md"}
    assert names, f"{goldens} holds no goldens"
    unclaimed = {name for name in names if not any(fnmatch(name, one) for one in CLAIMED)}
    planned = {name for name in unclaimed if any(fnmatch(name, kind) for kind in PLANNED)}
    print(f"{len(planned)} goldens are planned and have no test yet: {', '.join(sorted(planned)) or 'none'}")
    rest = sorted(unclaimed - planned)
    assert not rest, f"{len(rest)} goldens in {goldens} have no test: {', '.join(rest)}"


def test_what_is_planned_is_not_claimed():
    assert not [name for name in CLAIMED for kind in PLANNED if fnmatch(name, kind)]
