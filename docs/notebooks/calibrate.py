# %% [markdown]
# # Calibrate, and decide
#
# A score is not a decision. From labeled scores diptych makes a policy: allow, review or block, with error
# rates that are promised. Then the policy decides about new memes, one by one and as a file.

# %% install
# On Colab, or wherever diptych is missing.
from importlib.util import find_spec

if find_spec("diptych") is None:
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "diptych[report]"], check=True)

# %%
import csv
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

from diptych.cli import main

SIZE, EPOCHS = 2000, 4
folder = Path(mkdtemp(prefix="diptych-"))


def run(*words):
    """A command as in the terminal."""
    code = main([str(word) for word in words])
    assert code == 0, words


# %% [markdown]
# ## A model and its scores on labeled memes
#
# Half as many epochs as the experiment has, so that the model errs and the policy has something to do.

# %%
run("world", folder / "memes", "--size", SIZE, "--seed", 0)
run("train", "experiment=hateful_memes/uniter_tiny", f"root={folder}/memes", f"out={folder}/run",
    f"trainer.max_epochs={EPOCHS}", "progress=false", "loggers=[]")  # fmt: skip
run("predict", folder / "run", "--splits", "dev_seen")

# %% [markdown]
# ## The policy

# %%
run("calibrate", folder / "run/predictions/dev_seen.npz", "--root", folder / "memes", "--split", "dev_seen",
    "--max-miss", 0.05, "--max-wrong-block", 0.05, "--out", folder / "policy.yaml")  # fmt: skip
print((folder / "policy.yaml").read_text())

# %% [markdown]
# ## Decisions for a split, and for one meme

# %%
run("predict", folder / "run", "--splits", "test_seen", "--policy", folder / "policy.yaml")
with open(next(folder.rglob("decisions/test_seen.csv")), newline="") as file:
    print(Counter(row["action"] for row in csv.DictReader(file)))

# %%
meme = sorted((folder / "memes" / "img").iterdir())[0]
run("score", meme, "--text", "what a day", "--model", folder / "run", "--policy", folder / "policy.yaml")
