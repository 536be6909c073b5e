"""The official accuracy of MLT 2018 of real systems, where the environment variable DIPTYCH_MLT names them.

The folder is the official `2018evaluation`: references, translations of systems with their languages in
`index.txt`, and as `expected_accuracy.txt` what `evaluate.py` printed of those that are there.
"""

import os
import re
from pathlib import Path

from diptych.datasets import Mlt
from diptych.evaluate import evaluate

FOLDER = Path(os.environ["DIPTYCH_MLT"])


def test_every_accuracy_is_that_of_the_script():
    langs = dict(line.split()[::2] for line in (FOLDER / "index.txt").read_text().splitlines())
    printed = re.findall(
        r"(\S+)\s+accuracy = (\d+) / (\d+) = (\S+)", (FOLDER / "expected_accuracy.txt").read_text()
    )
    assert printed
    for name, right, count, accuracy in printed:
        split = Mlt(FOLDER, "references_2018", lang=langs[name])
        found = split.read_predictions(FOLDER / name)
        assert (sum(map(bool, found.answers)), len(split)) == (int(right), int(count))
        assert evaluate(found, split, samples=2)["accuracy"].value == float(accuracy)
