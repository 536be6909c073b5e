from collections import Counter

import numpy as np

import diptych
from diptych.datasets import HatefulMemes
from diptych.predictions import Predictions

train = HatefulMemes("memes", "train")
words = np.array([len(example.pairs[0].text.split(" ")) for example in train])
print(len(train), dict(Counter(example.target for example in train)))
print(f"mean {words.mean():.3f}, std {words.std(ddof=1):.3f},", np.percentile(words, [0, 25, 50, 75, 100]))

bundle = diptych.load("runs/benchmark").bundle
verdict = diptych.load("runs/benchmark").predict(image="memes/img/00001.png", text="what a day")
print(sum(weight.numel() for weight in bundle.model.parameters()), verdict.answer)

found = Predictions.load("runs/benchmark/predictions/test_seen.npz")
hateful = found.column("hateful")
for key, proba in list(zip(found.ids, hateful, strict=True))[:5]:
    print(key, f"{proba:.6f}", int(proba >= 0.5))
for label in (0, 1):
    chosen = hateful[(hateful >= 0.5) == label]
    print(label, len(chosen), f"{chosen.mean():.6f}")
