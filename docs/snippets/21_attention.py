import json
from pathlib import Path

import numpy as np

names = json.loads(Path("maps/names.json").read_text())["pairs"][0]
maps = np.load("maps/both-both.npy")  # [layers, heads, places, places]
print([place["name"] for place in names["places"]], maps[1].mean(0))
