# %% [markdown]
# # Questions about pictures, and why the model answers so
#
# A small VQA data set, an LXMERT with few layers, answers in the form of the official server, and the words
# and areas that decide one answer.

# %% install
# On Colab, or wherever diptych is missing.
from importlib.util import find_spec

if find_spec("diptych") is None:
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "diptych[report]"], check=True)

# %%
import json
from pathlib import Path
from tempfile import mkdtemp

from diptych.cli import main

SIZE, EPOCHS = 1000, 20
folder = Path(mkdtemp(prefix="diptych-"))


def run(*words):
    """A command as in the terminal."""
    code = main([str(word) for word in words])
    assert code == 0, words


# %% [markdown]
# ## Data and training

# %%
run("world", folder / "vqa", "--data", "vqa", "--size", SIZE, "--seed", 1)
run("train", "experiment=vqa/lxmert_tiny", f"root={folder}/vqa", f"out={folder}/run",
    f"trainer.max_epochs={EPOCHS}",
    "progress=false", "loggers=[]")  # fmt: skip

# %% [markdown]
# ## Answers
#
# VQA's accuracy compares with ten people.

# %%
run("predict", folder / "run", "--splits", "minival")
answers = folder / "run" / "predictions" / "minival_predict.json"
run("evaluate", answers, "--data", "vqa", "--root", folder / "vqa", "--split", "minival")
first = json.loads(answers.read_text())[0]
print(first)

# %% [markdown]
# ## Why
#
# Each word and each area of the picture has a contribution to the answer; together they are the difference
# between showing everything and showing nothing.

# %%
run("explain", folder / "run", "--split", "minival", "--ids", first["question_id"], "--permutations", 2,
    "--out", folder / "why.html", "--json", folder / "why.json")  # fmt: skip
explanation = json.loads((folder / "why.json").read_text())
print(json.dumps(explanation, indent=1)[:800])
print("open", folder / "why.html")
