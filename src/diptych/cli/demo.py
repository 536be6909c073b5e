"""Run the whole journey on a miniature data set, offline, in a few minutes.

Makes memes, trains multimodal and unimodal models, predicts, averages, evaluates and writes submission files;
then it makes a policy from the scores, decides on a meme, and explains the decision.
Every step is a command, and the command is printed. A second run skips the finished steps.

try:
  diptych demo
  diptych demo --out demo --size 2000
"""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from diptych.cli import output
from diptych.cli.options import add_out
from diptych.errors import ConfigError
from diptych.files import require_new

# name, experiment, seed, input of the model
# Two seeds of one model show how much chance matters; the last two, that one side alone is not enough.
MEMBERS = (
    ("uniter-1", "uniter_tiny", 1, "text + regions"),
    ("uniter-2", "uniter_tiny", 2, "text + regions"),
    ("concat", "concat_bert_tiny", 1, "text + pixels"),
    ("text-only", "text_bert_tiny", 1, "text"),
    ("image-only", "image_resnet_tiny", 1, "pixels"),
)
AVERAGED = ("uniter-1", "uniter-2", "concat")  # without the unimodal ones, which are at chance
DECIDES = "concat"  # reads the picture itself, so that any picture can be scored and explained
NO_PICTURE = 'not drawn; it needs pip install "diptych[report]"'
SPLITS = ("dev_seen", "test_seen", "test_unseen")


def configure(parser: argparse.ArgumentParser) -> None:
    add_out(parser, "default: demo", default=Path("demo"))
    parser.add_argument("--size", type=int, default=2000, help="number of memes (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the memes (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    began = time.perf_counter()
    out, memes = arguments.out, arguments.out / "memes"
    if not (memes / "world.json").exists():
        _step("world", memes, "--size", arguments.size, "--seed", arguments.seed)
    for name, experiment, seed, _ in MEMBERS:
        if not (out / name / "bundle").exists():  # written last, so the run is complete
            _step(
                "train",
                f"experiment=hateful_memes/{experiment}",
                f"root={memes}",
                f"out={out / name}",
                f"seed={seed}",
            )
    for name, *_ in MEMBERS:
        missing = [split for split in SPLITS if not (out / name / "predictions" / f"{split}.csv").exists()]
        if missing:
            # All missing splits in one call: loading the model takes longer than predicting a split.
            _step("predict", out / name, "--splits", ",".join(missing))
    for split in SPLITS:
        average = out / "average" / f"{split}.csv"
        if not average.exists():
            _step(
                "ensemble",
                # The .npz files: their scores are not rounded like those of the .csv files.
                *(out / name / "predictions" / f"{split}.npz" for name in AVERAGED),
                "--out",
                average,
            )
    _summarize(out, memes)
    # The last steps of a long journey must not fail for want of an extra.
    drawing = find_spec("matplotlib") is not None
    page = _draw(out, memes) if drawing else NO_PICTURE
    why = _decide(out, memes, drawing=drawing)
    print(f"submissions     {out / 'average'}/*.csv and {out}/*/predictions/*.csv")
    print(f"memes, scored   {page}")
    if why is not None:
        print(f"why             {why}")
    print(f"took            {time.perf_counter() - began:.0f} s")
    print(_own_data(out))
    return 0


def _step(verb: str, *words: object) -> str:
    """Print a command and run it; its output is shown only if it fails. Returns the last line of it."""
    # Here and not above, as `diptych.cli` imports the verbs. In this process: imports of torch take seconds.
    from diptych.cli import main

    argv = [verb, *map(str, words)]
    print(f"$ diptych {shlex.join(argv)}", flush=True)
    if verb == "train" and not sys.stderr.isatty():
        argv.append("progress=false")  # no progress lines in a log
    began, said = time.perf_counter(), StringIO()
    with redirect_stdout(said):
        code = main(argv)
    if code == 130:  # Ctrl-C was handled in the step; stop the demo too
        raise KeyboardInterrupt
    if code:
        print(said.getvalue(), file=sys.stderr)
        raise ConfigError(f"the step above ended with exit code {code}.")
    print(f"  {time.perf_counter() - began:.0f} s", flush=True)
    return said.getvalue().rstrip().rpartition("\n")[2]


def _predictions(out: Path, split: str) -> dict[str, Any]:
    from diptych.datasets.hateful_memes import LABELS
    from diptych.ensemble import read_predictions

    named = {name: read_predictions(out / name / "predictions" / f"{split}.npz") for name, *_ in MEMBERS}
    return named | {"average": read_predictions(out / "average" / f"{split}.csv", classes=LABELS)}


def _targets(memes: Path, split: str) -> Mapping[str, Any]:
    from diptych.datasets import HatefulMemes

    # dev_seen has its labels in the split itself.
    answers = memes / f"{split}.answers.jsonl"
    dataset = HatefulMemes(memes, split, answers=answers if answers.exists() else None)
    return {example.id: example.target for example in dataset}


def _summarize(out: Path, memes: Path) -> None:
    from diptych.evaluate import evaluate

    sees = {name: modality for name, _, _, modality in MEMBERS} | {"average": "of " + ", ".join(AVERAGED)}
    cells: dict[str, list[str]] = {name: [name, modality] for name, modality in sees.items()}
    for split in SPLITS:
        targets = _targets(memes, split)
        for name, predictions in _predictions(out, split).items():
            auroc = evaluate(predictions, targets)["auroc"]
            cells[name].append(f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]")
    print()
    title = "AUROC with 95 % interval; 0.5 is chance"
    output.table(title, ["model", "input", *SPLITS], list(cells.values()), numbers=len(SPLITS))


def _draw(out: Path, memes: Path) -> Path:
    from diptych.datasets import HatefulMemes
    from diptych.report import MemeItem, meme_page

    split = "test_unseen"
    dataset, targets, named = HatefulMemes(memes, split), _targets(memes, split), _predictions(out, split)
    columns: dict[str, Mapping[str, float]] = {
        name: dict(zip(predictions.ids, map(float, predictions.column("hateful")), strict=True))
        for name, predictions in named.items()
    }
    items: Sequence[MemeItem] = [
        MemeItem(
            image=memes / example.pairs[0].files[0],
            text=example.pairs[0].text,
            target=targets[example.id],
            scores={name: scores[example.id] for name, scores in columns.items()},
        )
        for example in dataset
    ]
    path = out / "memes.png"
    # Replaces the picture of an earlier demo, but no other file of that name.
    require_new(path, overwrite=True, kind="a PNG picture")
    wrong = {
        name: sum((columns[name][key] >= 0.5) != (target == "hateful") for key, target in targets.items())
        for name in AVERAGED
    }
    by = max(wrong, key=wrong.__getitem__)  # the most errors, so that the page shows wrong answers too
    meme_page(items, path, title=f"{split}: memes and their scores", positive=dataset.positive, by=by)
    return path


def _decide(out: Path, memes: Path, *, drawing: bool) -> Path | str | None:
    """Make a policy, decide on the meme that the model is least sure of, and explain it.

    Returns:
        The page, or why there is none; None if dev has too few memes for a policy.
    """
    from diptych.calibrate.fit import FEWEST
    from diptych.datasets import HatefulMemes

    run, policy, why = out / DECIDES, out / "policy.yaml", out / "why.html"
    labels = [*_targets(memes, "dev_seen").values()]
    if min(map(labels.count, set(labels))) < FEWEST:
        print(f"a policy needs {FEWEST} memes of each class in dev_seen; this demo is too small for one")
        return None
    if not policy.exists():
        dev = ("--root", memes, "--split", "dev_seen", "--max-miss", 0.05, "--max-wrong-block", 0.05)
        plot = ("--plot", out / "reliability.png", "--overwrite") if drawing else ()
        _step("calibrate", run / "predictions" / "dev_seen.npz", *dev, "--out", policy, *plot)
    if not why.exists():
        scores = _predictions(out, "test_unseen")[DECIDES]
        unsure = scores.ids[abs(scores.column("hateful") - 0.5).argmin()]
        example = next(one for one in HatefulMemes(memes, "test_unseen") if one.id == unsure)
        meme = (memes / example.pairs[0].files[0], "--text", example.pairs[0].text)
        print(f"  {_step('score', *meme, '--model', run, '--policy', policy)}")
        if not drawing:
            return NO_PICTURE
        _step("explain", run, *meme, "--policy", policy, "--out", why)
    return why


def _own_data(out: Path) -> str:
    return f"""
the same on your own data (a folder with train.jsonl, dev_seen.jsonl, test_seen.jsonl and img/):
  diptych check FOLDER
  diptych train experiment=hateful_memes/concat_bert root=FOLDER out=runs/mine
  diptych predict runs/mine --splits dev_seen,test_seen
  diptych evaluate runs/mine/predictions/dev_seen.csv --root FOLDER --split dev_seen
one meme:
  diptych score PICTURE --text "WORDS" --model {out / "concat"}
"""
