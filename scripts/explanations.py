r"""Pictures for docs/howto: the page of a policy, and of a right, a wrong and a reviewed decision by it.

diptych train experiment=hateful_memes/uniter_tiny root=demo/memes out=demo/half seed=1 trainer.max_epochs=4
diptych predict demo/half --splits dev_seen,test_unseen
diptych calibrate demo/half/predictions/dev_seen.npz --root demo/memes --split dev_seen \
    --max-miss 0.05 --max-wrong-block 0.05 --out demo/half.yaml --page demo/half.html
python scripts/explanations.py demo/half demo/half.yaml demo/memes docs/images --page demo/half.html

The run ends early on purpose: after all epochs it errs too rarely. The pictures are taken with Chromium.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from diptych.calibrate import Policy
from diptych.cli import main as diptych
from diptych.datasets import find_data
from diptych.predictions import Predictions

SPLIT = "test_unseen"
SIZE = (1000, 940)  # of the window, in pixels
COLORS = 64  # of a picture: text and areas stay clear, and the file small


def chosen(run: Path, policy: Policy, root: Path) -> dict[str, str]:
    """A right, a wrong and a reviewed decision; if there are any, decisions that need evidence."""
    truth = find_data(root).open_labeled(root, SPLIT).truth()
    predictions = Predictions.load(run / "predictions" / f"{SPLIT}.npz").align([*truth])
    (label,) = policy.labels
    decisions = policy.decide(predictions)
    found: dict[str, tuple[float, str]] = {}
    columns = (predictions.ids, decisions.action, predictions.column(label))
    for key, action, score in zip(*columns, strict=True):
        kind = "reviewed" if action == "review" else "right" if (action == "block") == truth[key] else "wrong"
        # A model answers "benign" without evidence, too, so a high score has more to explain.
        rank = -abs(float(score) - 0.6) if kind == "reviewed" else float(score)
        found[kind] = max(found.get(kind, (-2.0, "")), (rank, key))
    return {kind: key for kind, (_, key) in found.items()}


def photograph(page: Path, picture: Path) -> None:
    """Show a page in Chromium without a window, and keep what is seen."""
    with TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        window = ("--window-size={},{}".format(*SIZE), f"--screenshot={shot}", "--hide-scrollbars")
        command = (
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            *window,
            page.absolute().as_uri(),
        )
        subprocess.run(command, check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(COLORS).save(picture, optimize=True)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("run", "policy", "root", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--page", type=Path, help="the page of the policy")
    options = parser.parse_args(argv)
    if options.page is not None:
        photograph(options.page, options.out / "policy.png")
    for kind, key in chosen(options.run, Policy.load(options.policy), options.root).items():
        with TemporaryDirectory() as folder:
            page = Path(folder) / "why.html"
            split = ("--ids", key, "--split", SPLIT, "--root", str(options.root))
            more = ("--policy", str(options.policy), "--out", str(page))
            if diptych(["explain", str(options.run), *split, *more]):
                raise SystemExit(2)
            photograph(page, options.out / f"explain-{kind}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
