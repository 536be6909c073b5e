import json
from pathlib import Path

import numpy as np

from diptych.predictions import Predictions

numbers, generator = range(300), np.random.default_rng(0)
Path("judged").mkdir()
lines = ({"id": f"{n:05d}", "img": f"img/{n}.png", "label": n % 2, "text": "a day"} for n in numbers)
Path("judged/dev_seen.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
scores = np.array([0.2 + 0.4 * (n % 2) for n in numbers]) + 0.4 * generator.random(300)
Predictions(
    ids=tuple(f"{n:05d}" for n in numbers),
    scores=np.stack((1 - scores, scores), axis=1),
    classes=("benign", "hateful"),
).save(Path("judged/dev_seen.npz"))

from pathlib import Path

from diptych.calibrate import Settings, calibrate
from diptych.datasets import HatefulMemes
from diptych.evaluate import with_targets
from diptych.predictions import Predictions

dev = HatefulMemes(Path("judged"), "dev_seen")
predictions, targets = with_targets(Predictions.load(Path("judged/dev_seen.npz")), dev)
about = {"split": "dev_seen", "checksum": "", "examples": len(targets), "scores": "as predicted"}
found = calibrate(predictions, targets, dev=about, settings=Settings(max_miss=0.1), positive=["hateful"])
decisions = found.policy.decide(predictions)
print(decisions.action[:3], decisions.probability[:3])
