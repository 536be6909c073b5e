"""Explanations of every family against the known evidence of the miniature world, over seeds.

diptych world memes --size 2000 --seed 0
python scripts/planted.py memes planted                   7 families, 3 seeds: 25 minutes
python scripts/planted.py memes planted --families oscar --seeds 1

Each run is trained by its experiment and checked by `diptych explain RUN --check`. What is there already is
kept, so an interrupted call continues. The table that is printed is that of docs/howto/explain.md: counts are
summed over seeds, the range of their shares and of the margins follows.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.cli import main as diptych
from diptych.explain import METHODS

FAMILIES = ("uniter", "lxmert", "vilbert", "vlbert", "ernievil", "visualbert", "oscar")
SPLIT = "test_unseen"
HEAD = (
    "model, number of seeds",
    "other picture",
    "other text",
    "deciding regions",
    "scenery",
    "area",
    "word",
    "margin",
)


def checked(root: Path, out: Path, family: str, seed: int, limit: int) -> dict[str, Any]:
    """What `--check` finds of one run, which is trained if it is not there."""
    run, file = out / family / str(seed), out / family / f"{seed}.json"
    if not (run / "bundle").is_dir():
        words = [f"root={root}", f"out={run}", f"seed={seed}", "progress=false", "loggers=[]"]
        if diptych(["train", f"experiment=hateful_memes/{family}_tiny", *words]):
            raise SystemExit(2)
    if not file.is_file():
        words = ["--split", SPLIT, "--root", str(root), "--limit", str(limit), "--json", str(file)]
        if diptych(["explain", str(run), "--check", *words]):
            raise SystemExit(2)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def row(family: str, found: Sequence[dict[str, Any]]) -> str:
    """A row of the table, in Markdown."""
    cells = [f"{family}-tiny, {len(found)}"]
    cells += [_shares([one["swaps"][name] for one in found]) for name in ("picture", "text", "subject")]
    cells.append(_shares([one["swaps"]["scenery"] for one in found]))
    cells += [_shares([one[side][METHODS[0]] for one in found]) for side in ("areas", "words")]
    margins = [one["margin"][METHODS[0]]["value"] for one in found]
    cells.append(f"{sum(margins) / len(margins):.2f}{_range(margins)}")
    return f"| {' | '.join(cells)} |"


def _shares(some: Sequence[dict[str, int]]) -> str:
    count, total = (sum(one[name] for one in some) for name in ("count", "total"))
    return f"{count}/{total}{_range([one['count'] / one['total'] for one in some if one['total']])}"


def _range(values: Sequence[float]) -> str:
    return f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="memes of `diptych world`")
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--limit", type=int, default=48, help="memes per run (default: 48)")
    options = parser.parse_args(argv)
    rows = [
        row(
            family,
            [
                checked(options.root, options.out, family, int(seed), options.limit)
                for seed in options.seeds.split(",")
            ],
        )
        for family in options.families.split(",")
    ]
    print(f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *rows, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
