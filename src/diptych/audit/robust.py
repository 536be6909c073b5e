"""How far a model's answers change under attacks that a person sees through.

Every attack changes all memes of a labeled split. Its AUROC is compared with that of the memes as they are
(paired bootstrap), and the answers are counted that flip.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.audit.attacks import PICTURES, WORDS, move_caption
from diptych.data import Reworded
from diptych.data.processor import image_keys
from diptych.detect.ocr import Chosen, Line, TextReader, arranged, words
from diptych.errors import ConfigError
from diptych.images import open_image
from diptych.metrics import auroc, bootstrap_interval, paired_interval, wilson_interval
from diptych.predict import Predictor
from diptych.predictions import Predictions
from diptych.types import Example, Progress, RegionSource

if TYPE_CHECKING:
    from diptych.datasets import Split

Regions = Callable[[Mapping[str, Path]], AbstractContextManager[RegionSource | None]]
"""Makes the regions of pictures, by key; they exist inside of the block."""

CLEAN, READ, MOVED = "as they are", "words read by OCR", "caption moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """A model's answers under one attack; every interval is of 95 %.

    Args:
        auroc: with `interval`; nan if the labels are of one class.
        change: of AUROC against the memes as they are, with `change_interval`.
        flips: share of other answers, with `flips_interval` (Wilson).
        flipped: ids of the first of them.
    """

    name: str
    side: str
    auroc: float
    interval: tuple[float, float]
    change: float
    change_interval: tuple[float, float]
    flips: float
    flips_interval: tuple[float, float]
    flipped: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """Result of `robust`; the first of `attacks` is no attack.

    Args:
        skipped: attacks that were not tried, with the reason.
    """

    count: int
    attacks: tuple[Attacked, ...]
    skipped: dict[str, str]


def robust(
    predictor: Predictor,
    dataset: "Split",
    *,
    regions: Regions | None = None,
    moving: bool = False,
    reader: TextReader | None = None,
    chosen: Chosen = "captions",
    samples: int = 2000,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Robustness:
    """Attack every example of a split, and measure what the answers are worth then.

    Args:
        dataset: a labeled split with a positive class.
        regions: regions of the pictures, for models that read some.
        moving: whether `regions` are those of the pictures it is given, so that pictures can be attacked.
            Stored regions, which know nothing of changed pictures, are not.
        reader: finds words, for the attacks that need them: moved captions, and texts as read.
        progress: called with (number of finished attacks, all of them).

    Raises:
        ConfigError: the data set has no positive class, or a label is missing.
    """
    suite = _Suite(predictor, dataset, batch_size, seed, regions)
    skipped = suite.skipped(moving=moving, reader=reader)
    # CLEAN comes first: all others are compared with it.
    names = [name for name in (CLEAN, *WORDS, READ, *PICTURES, MOVED) if name not in skipped]
    # Reading is slow, so words are looked for only if an attack needs them.
    lines = suite.lines(reader) if {READ, MOVED} & {*names} and reader is not None else {}
    found: dict[str, Predictions] = {}
    for number, name in enumerate(names):
        if name in PICTURES or name == MOVED:
            with suite.pictures(name, lines) as images:
                found[name] = suite.predict(images=images)
        else:
            found[name] = suite.predict(texts=suite.texts(name, lines, chosen))
        if progress is not None:
            progress(number + 1, len(names))
    attacks = [suite.attacked(name, one, found[CLEAN], samples=samples) for name, one in found.items()]
    return Robustness(count=len(dataset), attacks=tuple(attacks), skipped=skipped)


class _Suite:
    """A model and a split, and the changed versions of it."""

    def __init__(
        self, predictor: Predictor, dataset: "Split", batch_size: int, seed: int, regions: Regions | None
    ) -> None:
        self.predictor, self.dataset, self.batch_size, self.seed = predictor, dataset, batch_size, seed
        self.regions = regions
        self.examples: list[Example] = [*dataset]
        truth = [*dataset.truth().values()]  # refuses data sets without a positive class
        if None in truth or not truth:
            missing = truth.count(None)
            raise ConfigError(
                f"{dataset.files[0]}: {missing} of {len(truth)} {dataset.noun}s have no label; expected a "
                "labeled split."
            )
        self.truth: Bool[ndarray, " N"] = np.array(truth, bool)
        # Each picture once, even if several examples show it.
        self.keys = [
            *dict.fromkeys(key for one in self.examples for pair in one.pairs for key in image_keys(pair))
        ]

    def skipped(self, *, moving: bool, reader: TextReader | None) -> dict[str, str]:
        """Return why attacks cannot be tried on this model."""
        reads = self.predictor.processor.provides
        reasons: dict[str, str] = {}
        if not reads & {"text", "vectors"}:
            reasons |= dict.fromkeys((*WORDS, READ), "the model reads no text")
        if not reads & {"pixels", "regions"}:
            reasons |= dict.fromkeys((*PICTURES, MOVED), "the model reads no pictures")
        elif "regions" in reads and self.predictor.processor.grid is None and not moving:
            why = "the model reads stored regions; add the weights of their detector"
            reasons |= dict.fromkeys((*PICTURES, MOVED), why)
        if reader is None:
            reasons |= {name: "needs --ocr" for name in (READ, MOVED) if name not in reasons}
        return reasons

    def lines(self, reader: TextReader) -> dict[str, list[Line]]:
        """Return the lines of every picture."""
        images = self.dataset.images
        return {key: arranged(reader.read([open_image(images[key])])[0]) for key in self.keys}

    def texts(self, name: str, lines: Mapping[str, list[Line]], chosen: Chosen) -> dict[str, str]:
        """Return the changed texts by id; none for the memes as they are."""
        if name == CLEAN:
            return {}
        if name == READ:
            return {
                one.id: " ".join(words(lines[key], chosen) for pair in one.pairs for key in image_keys(pair))
                for one in self.examples
            }
        # A seed of the example's own, so that its text does not depend on the others.
        return {
            # CRC and not hash(), which differs from process to process.
            one.id: WORDS[name](
                one.pairs[0].text, np.random.default_rng([self.seed, zlib.crc32(one.id.encode())])
            )
            for one in self.examples
        }

    @contextmanager
    def pictures(self, name: str, lines: Mapping[str, list[Line]]) -> Iterator[dict[str, Path]]:
        """Write changed pictures to a folder that exists within the block."""
        images = self.dataset.images
        with TemporaryDirectory() as folder:
            paths: dict[str, Path] = {}
            for key in self.keys:
                image = open_image(images[key])
                changed = move_caption(image, lines[key]) if name == MOVED else PICTURES[name](image)
                # The stem is the key under which detectors store regions.
                # PNG keeps every pixel, so that the attack is all that changes.
                paths[key] = Path(folder) / f"{key}.png"
                # A key may hold a folder, such as `img/01235`.
                paths[key].parent.mkdir(parents=True, exist_ok=True)
                # Read once and deleted: writing fast is worth more than a small file.
                changed.save(paths[key], compress_level=1)
            yield paths

    def predict(
        self, *, texts: Mapping[str, str] | None = None, images: Mapping[str, Path] | None = None
    ) -> Predictions:
        """Predict the split with other texts or other pictures."""
        images = images or dict(self.dataset.images)
        dataset = Reworded(self.dataset, texts or {})
        if self.regions is None:
            return self.predictor.predict_dataset(dataset, images=images, batch_size=self.batch_size)
        with self.regions(images) as source:
            return self.predictor.predict_dataset(
                dataset, features=source, images=images, batch_size=self.batch_size
            )

    def attacked(self, name: str, predictions: Predictions, clean: Predictions, *, samples: int) -> Attacked:
        """Compare predictions with those of the memes as they are."""
        positive = self.dataset.positive or ""
        scores: Float[ndarray, " N"] = predictions.column(positive).astype(np.float64)
        before = clean.column(positive).astype(np.float64)
        answers = zip(predictions.answers or (), clean.answers or (), predictions.ids, strict=True)
        flipped = tuple(id for now, then, id in answers if now != then)
        value, base = auroc(self.truth, scores), auroc(self.truth, before)
        same = name == CLEAN
        return Attacked(
            name=name,
            side="" if same else "text" if name in WORDS or name == READ else "picture",
            auroc=value,
            interval=bootstrap_interval(self.truth, scores, auroc, samples=samples, seed=self.seed),
            change=value - base,
            # The difference to itself is 0 in every resample.
            change_interval=(0.0, 0.0)
            if same
            else paired_interval(self.truth, scores, before, auroc, samples=samples, seed=self.seed),
            flips=len(flipped) / len(clean),
            flips_interval=wilson_interval(len(flipped), len(clean)),
            flipped=flipped[:5],
        )
