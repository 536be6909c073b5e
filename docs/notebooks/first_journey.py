# %% [markdown]
# # First journey
#
# Make a small data set of memes, train a model that reads text and regions, compare it with one that reads
# the text alone. Every picture and every text occurs once as "hateful" and once as "benign", so one side
# alone tells nothing.

# %% install
# On Colab, or wherever diptych is missing.
from importlib.util import find_spec

if find_spec("diptych") is None:
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "diptych[report]"], check=True)

# %%
from pathlib import Path
from tempfile import mkdtemp

import diptych
from diptych.cli import main
from diptych.features import FeatureStore

SIZE, EPOCHS = 600, 8
folder = Path(mkdtemp(prefix="diptych-"))


def run(command):
    """A command as in the terminal."""
    code = main(command.split())
    assert code == 0, command


# %% [markdown]
# ## Data

# %%
run(f"world {folder}/memes --size {SIZE} --seed 0")
print((folder / "memes" / "train.jsonl").read_text().splitlines()[0])

# %% [markdown]
# ## Two models

# %%
quiet = f"root={folder}/memes trainer.max_epochs={EPOCHS} progress=false loggers=[]"
run(f"train experiment=hateful_memes/uniter_tiny out={folder}/both {quiet}")
run(f"train experiment=hateful_memes/text_bert_tiny out={folder}/text {quiet}")

# %% [markdown]
# ## Predict and compare
#
# Every number has an interval; the second file is compared with the first, example by example.

# %%
run(f"predict {folder}/both --splits test_seen")
run(f"predict {folder}/text --splits test_seen")
files = f"{folder}/both/predictions/test_seen.csv {folder}/text/predictions/test_seen.csv"
run(f"evaluate {files} --root {folder}/memes --split test_seen")

# %% [markdown]
# ## One meme from Python

# %%
store = FeatureStore(folder / "memes" / "features")
key = next(iter(store))
verdict = diptych.load(folder / "both").predict(text="what a lovely red ball", regions=store[key])
print(key, verdict.answer, verdict.scores)
