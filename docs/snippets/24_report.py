from pathlib import Path

from diptych.datasets import HatefulMemes
from diptych.evaluate import repeated
from diptych.predictions import Predictions

dev = HatefulMemes(Path("judged"), "dev_seen")
scores = Predictions.load(Path("judged/dev_seen.npz"))
found = repeated({"mine": [scores]}, dev, positive="hateful")
print(found.measure, found.recipes["mine"].mean)
