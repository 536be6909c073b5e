"""What operators are given names what there is: metrics, problems, options, addresses."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from diptych.cli import serve as verb
from diptych.serve.addresses import ADDRESSES
from diptych.serve.metrics import Metrics
from diptych.serve.problems import BASE, KINDS, Problem

DOCS = Path(__file__).parents[2] / "docs"
OPERATE = DOCS / "operate"
NAME = re.compile(r"\bdiptych_\w+")


@pytest.fixture(scope="module")
def samples():
    """Names of all samples that the registry can have, with the labels of their metric."""
    metrics = Metrics()
    found = {}
    for metric in [one for one in vars(metrics).values() if hasattr(one, "_labelnames")]:
        kind, [described] = type(metric).__name__, metric.describe()
        endings = {"Counter": ["_total"], "Histogram": ["_bucket", "_sum", "_count"], "Gauge": [""]}[kind]
        labels = set(metric._labelnames) | ({"le"} if kind == "Histogram" else set())
        found |= {described.name + ending: labels for ending in endings}
    return found


def test_the_dashboard_asks_for_metrics_that_there_are(samples):
    board = json.loads((OPERATE / "dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in asked:
        names = NAME.findall(expression)
        known = set().union(*(samples[name] for name in names))
        grouped = {one for group in re.findall(r"by \(([^)]*)\)", expression) for one in group.split(", ")}
        filtered = set(re.findall(r"[{,](\w+)=", expression))
        assert grouped | filtered <= known, expression
        assert expression.count("(") == expression.count(")")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("page", ["operate/alarms.md", "operate/run.md", "howto/serve.md"])
def test_pages_name_metrics_that_there_are(samples, page):
    # A histogram as a whole may be meant.
    whole = {name.removesuffix("_bucket") for name in samples}
    assert set(NAME.findall((DOCS / page).read_text())) <= whole | samples.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_problem_has_a_page(kind):
    text = (DOCS / "problems" / "service" / f"{kind}.md").read_text()
    assert text.startswith(f"# {kind}\n\n{KINDS[kind].title}\n")
    assert f"| {KINDS[kind].status} |" in text
    assert Problem(kind, "x").as_dict("1")["type"] == f"{BASE}{kind}"


def test_pages_are_of_problems_that_there_are():
    assert {path.stem for path in (DOCS / "problems" / "service").glob("*.md")} == set(KINDS)


def options() -> set[str]:
    parser = ArgumentParser()
    verb.configure(parser)
    return set(parser._option_string_actions)


def test_the_unit_starts_what_there_is_and_waits_for_it():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(OPERATE / "diptych.service")
    service = unit["Service"]
    assert set(re.findall(r"--[a-z-]+", service["ExecStart"])) <= options()
    parser = ArgumentParser()
    verb.configure(parser)
    usual = parser.parse_args(["x"])
    assert int(service["TimeoutStopSec"]) > usual.drain_wait + usual.timeout_graceful_shutdown
    # The one folder that it may write to is that of the audit log.
    assert service["ReadWritePaths"].endswith("/audit")
    assert "--audit audit" in service["ExecStart"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_the_unit(tmp_path):
    text = (OPERATE / "diptych.service").read_text()
    # The program must exist; everything else is as it is documented.
    place = tmp_path / "diptych.service"
    place.write_text(text.replace("/srv/diptych/venv/bin/diptych", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(place)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_is_one_that_drains():
    text = (OPERATE / "Dockerfile").read_text()
    logical = re.sub(r"\\\n\s*", "", text)
    steps = [line.split(None, 1) for line in logical.splitlines() if line and not line.startswith("#")]
    words = [step for step, _ in steps]
    assert words[0] == "FROM"
    assert not words.count("ADD")
    assert words.index("USER") < words.index("ENTRYPOINT")
    entry = json.loads(dict(steps)["ENTRYPOINT"])
    assert entry[:2] == ["diptych", "serve"]
    assert set(re.findall(r"--[a-z-]+", " ".join(entry))) <= options()
    root = DOCS.parent
    for source in [one for step, given in steps if step == "COPY" for one in given.split()[:-1]]:
        assert (root / source).exists(), source
    assert "/livez" in text
    assert "/livez" in {address.path for address in ADDRESSES}
