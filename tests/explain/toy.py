"""A text, and regions of a picture."""

from pathlib import Path

import numpy as np

from diptych.data import Sources
from diptych.predict import GivenRegions, Predictor
from diptych.types import Regions

TEXT = "Zwei Mädchen grüßen den Hund"
WIDTH = 8


def found(count: int, seed: int = 0) -> Regions:
    """So many regions of a picture of 60 x 40 pixels; the first covers its left half."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((count, 2, 2)), 1).reshape(-1, 4) * [60, 40, 60, 40]
    corners[:1] = [0, 0, 30, 40]
    return Regions(
        features=random.normal(size=(count, WIDTH)).astype(np.float32),
        boxes=corners.astype(np.float32),
        size=(60, 40),
        labels=np.arange(count) % 2,
    )


def sources_of(predictor: Predictor, **images: tuple[Path, Regions]) -> Sources:
    given = GivenRegions({key: one for key, (_, one) in images.items()}, detector=predictor.bundle.features)
    return Sources(regions=given, images={key: path for key, (path, _) in images.items()})
