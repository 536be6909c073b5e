"""Pictures, regions and vocabulary of scenes of the miniature world, as several data sets have them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diptych.features import write_store
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world import Scene, detect, draw_scene
from diptych.world.render import CLASSES, FEATURE_DIM
from diptych.world.scene import COLORS

VOCABULARY_SIZE = 1200
QUALITY = 90  # of JPEG
Keyed = tuple[str, int, Scene]
"""Key of a picture, number of its scene, and the scene."""


def write_scenes(
    folder: Path,
    scenes: Sequence[Keyed],
    *,
    seed: int,
    texts: Iterable[str],
    progress: Progress | None,
    each: int = 1,
    place: Callable[[str], str] = "images/{}.jpg".format,
    soft: bool = False,
    cased: bool = False,
) -> None:
    """Write `images/KEY.jpg`, the regions as `features/`, and `vocabulary.txt`.

    Args:
        texts: the vocabulary is learned from.
        progress: called with the number of examples that are done and of all.
        each: number of examples of a scene.
        place: path of a picture below `folder`, by its key.
        soft: the store has probabilities of all classes too, which VL-BERT's pre-training predicts.
        cased: also write `vocabulary-cased.txt`, with capitals and accents; `texts` is read twice then.
    """
    for parent in {(folder / place(key)).parent for key, _, _ in scenes}:
        parent.mkdir(exist_ok=True)
    meta = FeatureMeta(
        feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
    )
    pictures = _pictures(folder, scenes, seed, progress, each, place)
    if soft:
        pictures = ((key, softened(regions)) for key, regions in pictures)
    write_store(folder / "features", pictures, meta)
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    if cased:
        words = learn_vocabulary(texts, VOCABULARY_SIZE, lowercase=False)
        write_vocabulary(folder / "vocabulary-cased.txt", words)


def _pictures(
    folder: Path,
    scenes: Sequence[Keyed],
    seed: int,
    progress: Progress | None,
    each: int,
    place: Callable[[str], str],
) -> Iterator[tuple[str, Regions]]:
    # One stream of random numbers per scene and purpose, so that a larger world begins with the same scenes.
    for done, (key, number, scene) in enumerate(scenes, 1):
        draw_scene(scene).save(folder / place(key), quality=QUALITY)
        yield key, detect(scene, np.random.default_rng([seed, 3, number]))
        if progress is not None:
            progress(each * done, each * len(scenes))


def softened(regions: Regions) -> Regions:
    """Add probabilities: column 0 is the background. The label has its score, the others share the rest."""
    assert regions.labels is not None and regions.scores is not None, "the world's detector gives them"
    # One column more than classes, one of which has the score: the others and it sum to 1.
    rest = (1 - regions.scores) / len(CLASSES)
    probabilities = np.repeat(rest[:, None], len(CLASSES) + 1, axis=1).astype(np.float32)
    probabilities[np.arange(len(regions)), regions.labels + 1] = regions.scores
    return replace(regions, probabilities=probabilities)
