from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return import_module("bench.__main__")


def run(bench, monkeypatch, *kept):
    """The exit code of modules whose rows promise something that is kept, or is not, or promise nothing."""
    promise = import_module("bench._timing").promise
    modules = {
        f"bench.{name}": SimpleNamespace(
            rows=lambda name=name, good=good: iter(
                [
                    (f"work [of] {name}", "3 s", "plain 1 s", "0.3x"),
                    (f"row of {name}", "2 s", "plain 1 s", "0.5x", promise("< 1 s", good)),
                    (f"blank of {name}", "2 s", "plain 1 s", "0.5x", ""),
                ]
            )
        )
        for name, good in zip(("metrics", "models", "study"), kept, strict=False)
    }
    monkeypatch.setattr(bench, "import_module", modules.__getitem__)
    return bench.main([name.partition(".")[2] for name in modules])


def test_missed_promises_stand_in_the_end_and_fail(bench, monkeypatch, capsys):
    assert run(bench, monkeypatch, True, False, False) == 1
    *_, count, first, second = map(str.strip, capsys.readouterr().out.splitlines())
    assert count == "2 problem(s):"
    assert first.startswith("models: row of models: 2 s; promised < 1 s")
    assert second.startswith("study: row of study: 2 s; promised < 1 s")


def test_kept_promises_are_said(bench, monkeypatch, capsys):
    assert run(bench, monkeypatch, True, True) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Every promise is kept."


def test_a_module_that_breaks_fails(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "import_module", lambda name: 1 / 0)
    assert bench.main(["metrics"]) == 1
    assert "metrics: failed (ZeroDivisionError" in capsys.readouterr().out
