"""A golden that nobody compares with proves nothing."""

from pathlib import Path


def test_every_golden_is_claimed_by_a_parity_test(goldens):
    text = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    names = {path.name.split(".")[0] for path in goldens.iterdir() if path.name != "README.md"}
    unclaimed = sorted(name for name in names if f'"{name}"' not in text)
    assert names, f"{goldens} holds no goldens"
    assert not unclaimed, f"{len(unclaimed)} goldens in {goldens} have no test: {', '.join(unclaimed)}"
