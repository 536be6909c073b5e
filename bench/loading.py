"""Data loading: batches of texts and regions, and pictures, beside the loops that others write.

Rates are per second of processor time, so that other work on the machine does not count; those of the loader
with workers are per second on the clock.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from bench._timing import in_turns
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from diptych.data import Collate, Processor, Sources
from diptych.features import FeatureStore, write_store
from diptych.images import open_image, to_pixels
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import Example, FeatureMeta, Pair, Regions

MEMES, REGIONS, WIDTH, WORDS, BATCH = 512, 36, 2048, 12, 32
PICTURES, SIDE = 48, 224
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the plain way, and how many times faster ours is."""
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        yield batches(folder)
        yield from pictures(folder)


def batches(folder: Path) -> Row:
    """One epoch in shuffled batches; the plain loop has all features in memory before it begins."""
    examples, tokenizer, store = memes(folder)
    order = np.random.default_rng(1).permutation(MEMES)
    steps = [[examples[index] for index in step] for step in np.split(order, MEMES // BATCH)]
    collate = Collate(Processor(text=tokenizer, regions=True), sources=Sources(regions=store))
    loaded = {
        key: {
            "features": store[key].features.astype(np.float32),
            "boxes": store[key].boxes,
            "size": store[key].size,
        }
        for key in store
    }
    first, plain = collate(steps[0]).inputs, as_originals(steps[0], tokenizer, loaded)
    assert first.regions is not None
    torch.testing.assert_close(first.regions.features, plain["features"])
    fast, slow = in_turns(
        lambda: [collate(step) for step in steps],
        lambda: [as_originals(step, tokenizer, loaded) for step in steps],
        clock=time.process_time,
    )
    return (
        f"batches of {BATCH}: {WORDS} words, {REGIONS} x {WIDTH} regions, from a mapped float16 store",
        f"{MEMES / fast:,.0f} rows/s",
        f"per row from a dict in memory, padded to 128: {MEMES / slow:,.0f} rows/s",
        f"{slow / fast:.1f}x",
    )


def memes(folder: Path) -> tuple[list[Example], WordPiece, FeatureStore]:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 5)) for _ in range(400)]
    texts = [" ".join(random.choice(words, WORDS)) for _ in range(MEMES)]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, 1000))
    corners = random.random((MEMES, REGIONS, 2), dtype=np.float32) * 300
    regions = (
        Regions(
            features=random.random((REGIONS, WIDTH), dtype=np.float32).astype(np.float16),
            boxes=np.concatenate([corner, corner + 100], axis=1),
            size=(400, 400),
        )
        for corner in corners
    )
    named = ((str(number), one) for number, one in enumerate(regions))
    store = write_store(folder / "store", named, FeatureMeta(feature_dim=WIDTH, dtype="float16"))
    examples = [
        Example(id=str(number), pairs=(Pair(image=str(number), text=text),))
        for number, text in enumerate(texts)
    ]
    return examples, WordPiece(folder / "vocabulary.txt"), store


def as_originals(
    examples: Sequence[Example], tokenizer: WordPiece, loaded: dict[str, dict[str, np.ndarray]]
) -> dict[str, Tensor]:
    """Row by row, every text padded to 128 tokens, stacked by torch, as LXMERT and Vilio do."""
    made = []
    for example in examples:
        pair = example.pairs[0]
        found = loaded[str(pair.image)]
        width, height = found["size"]
        boxes = found["boxes"].copy()
        boxes[:, (0, 2)] /= width
        boxes[:, (1, 3)] /= height
        ids = list(tokenizer.encode(pair.text, max_tokens=128).ids)
        rest = 128 - len(ids)
        made.append(
            {
                "ids": torch.tensor(ids + [0] * rest),
                "mask": torch.tensor([1] * len(ids) + [0] * rest),
                "segments": torch.tensor([0] * 128),
                "features": torch.tensor(found["features"].copy()),
                "boxes": torch.tensor(boxes),
            }
        )
    collated: dict[str, Tensor] = default_collate(made)
    return collated


def pictures(folder: Path) -> Iterator[Row]:
    files = {kind: photographs(folder, kind) for kind in ("jpeg", "png")}
    for kind, paths in files.items():
        torch.testing.assert_close(ours(paths[0]), plainly(paths[0]), atol=1e-5, rtol=0)
        what = f"{kind.upper()} of 800 x 600 to {SIDE} pixels, equal numbers"
        yield opened(what, ours, "Pillow and NumPy", plainly, paths)
    paths = files["jpeg"]
    yield opened("JPEG, at_least=224 (pixels differ slightly)", drafted, "decoded in full", ours, paths)
    many = paths * 4
    alone = DataLoader(many, BATCH, collate_fn=stacked)
    beside = DataLoader(many, BATCH, collate_fn=stacked, num_workers=2, persistent_workers=True)
    fast, slow = in_turns(lambda: [*beside], lambda: [*alone])
    yield rated("JPEG through a loader with 2 workers", len(many), fast, "without workers", slow)


def opened(
    what: str, mine: Callable[[Path], Tensor], name: str, other: Callable[[Path], Tensor], paths: list[Path]
) -> Row:
    fast, slow = in_turns(lambda: [*map(mine, paths)], lambda: [*map(other, paths)], clock=time.process_time)
    return rated(what, len(paths), fast, name, slow)


def rated(what: str, count: int, fast: float, name: str, slow: float) -> Row:
    rate, other = (f"{count / seconds:,.0f} images/s" for seconds in (fast, slow))
    return what, rate, f"{name}: {other}", f"{slow / fast:.1f}x"


def photographs(folder: Path, kind: str) -> list[Path]:
    """Pictures as smooth and as noisy as photographs are."""
    random, paths = np.random.default_rng(0), []
    for number in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (15, 20, 3), np.uint8)).resize((800, 600))
        noise = random.normal(0, 4, (600, 800, 1))
        picture = Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))
        paths.append(folder / f"{number}.{kind}")
        picture.save(paths[-1])
    return paths


def ours(path: Path) -> Tensor:
    return to_pixels(open_image(path), SIDE)


def drafted(path: Path) -> Tensor:
    return to_pixels(open_image(path, at_least=SIDE), SIDE)


def plainly(path: Path) -> Tensor:
    picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(((np.array(picture) / 255 - MEAN) / STD).transpose(2, 0, 1)).float()


def stacked(paths: Sequence[Path]) -> Tensor:
    return torch.stack([ours(path) for path in paths])
