"""A study that is killed, again and again, ends in the same bytes as one that is not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diptych.cli import main

pytestmark = pytest.mark.journey
WORDS = ("members=U,V,ES", "seeds=1", "set=trainer.max_epochs=2", "limit=60")


def command(root: Path, out: Path) -> list[str]:
    return ["study", "run", "vilio_tiny", f"root={root}", f"out={out}", *WORDS]


@pytest.mark.timeout(900)
def test_a_killed_study_ends_in_the_same_bytes(memes: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    assert main(command(memes, whole)) == 0
    rest, draw, kills = time.monotonic() - began, random.Random(4), 0
    argv = [sys.executable, "-m", "diptych.cli", *command(memes, broken)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    while kills < 3:
        child = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(draw.randrange(1, 5)):  # steps that it may finish; then somewhere within the next one
            if not child.stdout.readline():  # type: ignore[union-attr]
                break
        time.sleep(draw.uniform(0, rest / 20))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        kills += 1
    assert main(command(memes, broken)) == 0
    names = sorted(path.name for path in whole.glob("FIN_*.csv"))
    assert names == ["FIN_dev_seen.csv", "FIN_test_seen.csv", "FIN_test_unseen.csv"]
    for name in names:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
