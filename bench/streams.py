"""Pre-training data in the millions: from a file of pairs to the first batch, in seconds and in megabytes.

Fabricates 10 million pairs of a text and the key of one of 200,000 images as JSON lines (1.3 GB; another
number as DIPTYCH_BENCH_PAIRS), and builds what `diptych train` builds before its first step, in a process of
its own: once with an empty cache, once with a full one. Seconds are on the clock, from after the imports.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench._timing import promise

PAIRS = int(os.environ.get("DIPTYCH_BENCH_PAIRS", "10000000"))
IMAGES, WIDTH, BATCH, WORDS = 200_000, 8, 256, 30_000
FIRST, AGAIN, MEMORY = 60, 5, 500  # seconds, seconds, MB

Row = tuple[str, ...]


def rows() -> Iterator[Row]:
    """What was measured, ours, the plain way, and what is promised."""
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        write_pairs(folder / "train.jsonl", PAIRS, seed=0)
        write_pairs(folder / "dev.jsonl", 1000, seed=1)
        plain = read_plainly(folder / "train.jsonl")
        write_rest(folder)
        first, again = (measured(folder) for _ in range(2))
    what = f"{PAIRS:,} pairs, {IMAGES:,} images: first batch"
    listed = f"a dict per line, all kept: {plain['seconds']:.0f} s"
    yield (
        f"{what}, the first time",
        f"{first['seconds']:.1f} s",
        listed,
        f"{plain['seconds'] / first['seconds']:.1f}x",
        promise(f"< {FIRST} s", first["seconds"] < FIRST),
    )
    yield (
        f"{what}, from the cache",
        f"{again['seconds']:.1f} s",
        listed,
        f"{plain['seconds'] / again['seconds']:.1f}x",
        promise(f"< {AGAIN} s", again["seconds"] < AGAIN),
    )
    for when, one in (("the first time", first), ("from the cache", again)):
        yield (
            f"memory beside the model at the first batch, {when} (peak {one['peak']:,.0f} MB)",
            f"{one['resident']:,.0f} MB",
            f"the dicts: {plain['resident']:,.0f} MB",
            f"{plain['resident'] / one['resident']:.1f}x",
            promise(f"< {MEMORY} MB", one["resident"] < MEMORY),
        )
    same = first["order"] == again["order"] and again["resumed"]
    yield (
        "a second process draws the same batches, and goes on in the middle of an epoch",
        "equal" if same else "different",
        "",
        "",
        promise("equal", same),
    )


def write_pairs(path: Path, count: int, *, seed: int) -> None:
    """Texts of about nine words whose frequencies are those of natural language (Zipf)."""
    random = np.random.default_rng(seed)
    letters = np.random.default_rng(0).integers(97, 123, (WORDS, 8), np.uint8)
    sizes = np.random.default_rng(0).integers(2, 9, WORDS)
    words = np.array([bytes(one[:size]).decode() for one, size in zip(letters, sizes, strict=True)])
    share = np.cumsum(1 / np.arange(1, WORDS + 1))
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, count, 100_000):
            many = min(100_000, count - first)
            lengths = np.clip(random.lognormal(2.2, 0.4, many).round(), 3, 40).astype(int)
            drawn = words[np.searchsorted(share, random.random(int(lengths.sum())) * share[-1])].tolist()
            ends = np.cumsum(lengths).tolist()
            keys = random.integers(0, IMAGES, many).tolist()
            file.writelines(
                f'{{"id": "{first + row}", "img": "{key:012d}.jpg", '
                f'"text": "{" ".join(drawn[stop - size : stop])}"}}\n'
                for row, (key, size, stop) in enumerate(zip(keys, lengths.tolist(), ends, strict=True))
            )


def write_rest(folder: Path) -> None:
    """A vocabulary, and a store with regions of every image."""
    from itertools import islice

    from diptych.features import write_store
    from diptych.text import learn_vocabulary, write_vocabulary
    from diptych.types import FeatureMeta, Regions

    with (folder / "dev.jsonl").open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, 1000)]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, 2000))
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (4, 1))
    features = np.zeros((4, WIDTH), np.float32)
    regions = (
        (f"{key:012d}", Regions(features=features[: 1 + key % 4], boxes=boxes[: 1 + key % 4], size=(9, 9)))
        for key in range(IMAGES)
    )
    write_store(folder / "features", regions, FeatureMeta(feature_dim=WIDTH))


def read_plainly(path: Path) -> dict[str, float]:
    """What the readers of LXMERT and UNITER do: one object per pair, for a tenth of them, times ten."""
    part, before, began, kept = max(1, PAIRS // 10), resident(), time.perf_counter(), []
    with path.open("rb") as file:
        for line in file:
            kept.append(json.loads(line))
            if len(kept) == part:
                break
    seconds = time.perf_counter() - began
    return {"seconds": 10 * seconds, "resident": 10 * max(1.0, resident() - before)}


def measured(folder: Path) -> dict[str, Any]:
    """`first_batch` in a new process."""
    places = [str(Path(__file__).parents[1]), *sys.path]
    environment = {
        **os.environ,
        "DIPTYCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
    }
    words = [sys.executable, "-m", "bench.streams", str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def first_batch(folder: Path) -> dict[str, Any]:
    """Everything before the first step of pre-training, and the first batch."""
    from diptych.recipe import compose
    from diptych.recipe.run import build
    from diptych.recipe.settle import settle

    words = [
        "model=uniter_tiny", "data=table", f"root={folder}", f"out={folder / 'run'}",
        "data.columns.id=id", "data.columns.image=img", "data.columns.text=text", f"data.batch_size={BATCH}",
    ]  # fmt: skip
    config = compose(words)
    words_alone = {"words": {"_target_": "diptych.tasks.objectives.MaskedText", "_partial_": True}}
    config["task"] = {"_target_": "diptych.tasks.Pretrain", "objectives": words_alone}
    before, began = resident(), time.perf_counter()
    parts = build(settle(config, folder / "run"))
    plan = parts.data.plan(seed=1)
    batch = next(iter(parts.data.train_loader(plan, start=0, stop=1)))
    seconds, after = time.perf_counter() - began, resident()
    middle = plan.steps_per_epoch // 2
    ids = [one.ids for one in parts.data.train_loader(plan, start=middle, stop=middle + 3)]
    again = [
        one.ids for one in parts.data.train_loader(parts.data.plan(seed=1), start=middle + 1, stop=middle + 3)
    ]
    return {
        "seconds": seconds,
        "resident": after - before,
        "peak": resident("VmHWM") - before,
        "order": [*batch.ids],
        "resumed": ids[1:] == again,
    }


def resident(name: str = "VmRSS") -> float:
    """Memory of this process in MB, pages of mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1000


if __name__ == "__main__":
    print(json.dumps(first_batch(Path(sys.argv[1]))))
