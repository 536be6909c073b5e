"""Region features: opening, random reads and import, each beside the plain way of doing it.

The store has the size of the Hateful Memes features (12,140 images, 36 regions, width 2048, float16: 1.8 GB
in the temporary folder); the environment variable DIPTYCH_BENCH_SCALE=0.1 makes it a tenth.
"""

import base64
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench._timing import promise

from diptych.features import FeatureStore, import_features, write_store, write_tsv
from diptych.types import FeatureMeta, Regions

IMAGES = max(1, int(12_140 * float(os.environ.get("DIPTYCH_BENCH_SCALE", "1"))))
TSV_IMAGES = 600
READS = 20_000
REGIONS, WIDTH = 36, 2048

Row = tuple[str, str, str, str, str]


OPEN_ONE = """
import json, sys, time
from diptych.features import FeatureStore
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
before, spent = resident(), []
for _ in range(2):  # the second time, all that opening imports is there
    begin = time.perf_counter()
    store = FeatureStore(sys.argv[1])
    assert sys.argv[2] in store and store.count(sys.argv[2]) == 36
    spent.append(time.perf_counter() - begin)
    del store
print(json.dumps([*spent, resident() - before]))
"""

LOAD_TSV = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
from features import load_as_originals
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
before, begin = resident(), time.perf_counter()
data = load_as_originals(sys.argv[1])
print(json.dumps([time.perf_counter() - begin, resident() - before]))
"""


def rows() -> Iterator[Row]:
    """What was measured, ours, the plain way, how many times faster ours is, and what is promised."""
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        tsv = folder / "features.tsv"
        write_tsv(tsv, images(TSV_IMAGES, np.float32))
        yield importing(tsv, folder)
        store = write_store(
            folder / "store", images(IMAGES, np.float16), FeatureMeta(feature_dim=WIDTH, dtype="float16")
        )
        yield from opening(store, tsv)
        yield reading(store, folder)


def importing(tsv: Path, folder: Path) -> Row:
    ours = best(lambda: import_features(tsv, folder / "imported", overwrite=True))
    plain = best(lambda: sum(1 for _ in parse(tsv)))
    size = tsv.stat().st_size / 1e6
    return (
        f"import a TSV of {TSV_IMAGES} x {REGIONS} x {WIDTH} into a float16 store",
        f"{ours:.2f} s ({size / ours:.0f} MB/s)",
        f"csv + base64 alone {plain:.2f} s ({size / plain:.0f} MB/s)",
        f"{plain / ours:.2f}x",
        promise("<= 2x plain", ours <= 2 * plain),
    )


def opening(store: FeatureStore, tsv: Path) -> Iterator[Row]:
    """In a fresh process with all that opening imports, and in one that has opened a store before."""
    runs = [fresh(OPEN_ONE, store.path, store.keys()[-1]) for _ in range(5)]
    first, second, resident = (min(values) for values in zip(*runs, strict=True))
    plain, plain_resident = fresh(LOAD_TSV, tsv, Path(__file__).parent)
    what = f"open a store of {IMAGES:,} x {REGIONS} x {WIDTH} and look up one image"
    other = f"original TSV loader, only {TSV_IMAGES} images: {plain:.2f} s, {plain_resident / 1e6:+.0f} MB"
    yield (
        f"{what}, in a fresh process with what is imported for it",
        f"{first * 1e3:.1f} ms, {resident / 1e6:+.1f} MB resident",
        other,
        f"> {plain / first:.0f}x",
        promise("< 50 ms, < 50 MB", first < 0.05 and resident < 50e6),
    )
    yield (
        f"{what}, the second time in a process",
        f"{second * 1e3:.1f} ms",
        other,
        f"> {plain / second:.0f}x",
        promise("< 10 ms", second < 0.01),
    )


def reading(store: FeatureStore, folder: Path) -> Row:
    """Random reads that copy every feature out, against one plain .npz file per image."""
    generator = np.random.default_rng(0)
    keys = generator.choice(np.array(store.keys()), READS).tolist()
    target = np.empty((REGIONS, WIDTH), np.float16)

    def ours() -> None:
        for key in keys:
            np.copyto(target, store[key].features)

    files = []
    for key, regions in images(TSV_IMAGES, np.float16):
        files.append(folder / f"{key}.npz")
        np.savez(files[-1], features=regions.features, boxes=regions.boxes, size=regions.size)

    def plain() -> None:
        for file in files:
            with np.load(file, allow_pickle=False) as arrays:
                np.copyto(target, arrays["features"])
                arrays["boxes"], arrays["size"]

    ours_rate, plain_rate = READS / best(ours), len(files) / best(plain)
    return (
        f"random reads from {IMAGES:,} images, one process",
        f"{ours_rate:,.0f} images/s",
        f"one .npz per image {plain_rate:,.0f} images/s",
        f"{ours_rate / plain_rate:.1f}x",
        promise(">= 5,000 images/s", ours_rate >= 5000),
    )


def images(count: int, dtype: type[np.floating[Any]]) -> Iterator[tuple[str, Regions]]:
    """Random regions; the same few blocks of features over and over, since only their size matters."""
    generator = np.random.default_rng(0)
    blocks = generator.random((16, REGIONS, WIDTH), dtype=np.float32).astype(dtype)
    corners = generator.random((16, REGIONS, 2), dtype=np.float32) * 300
    for number in range(count):
        corner = corners[number % 16]
        yield (
            f"{number:05d}",
            Regions(
                features=blocks[number % 16],
                boxes=np.concatenate([corner, corner + 100], axis=1),
                size=(400, 400),
                labels=np.arange(REGIONS),
                scores=np.ones(REGIONS, np.float32),
                attributes=np.arange(REGIONS),
                attribute_scores=np.ones(REGIONS, np.float32),
            ),
        )


def parse(tsv: Path) -> Iterator[dict[str, Any]]:
    """The plain way: Python's csv module and base64, nothing checked."""
    csv.field_size_limit(sys.maxsize)
    shapes = {
        "objects_id": np.int64,
        "objects_conf": np.float32,
        "attrs_id": np.int64,
        "attrs_conf": np.float32,
        "boxes": np.float32,
        "features": np.float32,
    }
    names = ["img_id", "img_h", "img_w", *list(shapes)[:4], "num_boxes", "boxes", "features"]
    with tsv.open() as file:
        for item in csv.DictReader(file, names, delimiter="\t"):
            for name, dtype in shapes.items():
                item[name] = np.frombuffer(base64.b64decode(item[name]), dtype)
            yield item


def load_as_originals(tsv: str) -> list[dict[str, Any]]:
    """All rows into a list, as the loaders of LXMERT and Vilio do."""
    return list(parse(Path(tsv)))


def best(function: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def fresh(program: str, *arguments: object) -> list[float]:
    """Seconds and resident bytes that a program prints, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    numbers: list[float] = json.loads(done.stdout)
    return numbers


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="\n    ")
