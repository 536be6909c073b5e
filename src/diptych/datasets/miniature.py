"""The miniature world that every data set writes its own files from.

A remark grumbles about warm or about cool colors. A meme is hateful exactly when the subject of its picture,
the largest thing, wears the kind of color that its text grumbles about. Memes come in fours, two pictures by
two texts, so every picture and every text is once hateful and once benign: neither alone says anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from numpy.random import Generator

from diptych.errors import ConfigError
from diptych.features import FeatureStore, write_store
from diptych.features.tsv import write_tsv
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world.language import Remark, captions, grumble
from diptych.world.render import CLASSES, FEATURE_DIM, detect, draw_meme, draw_scene
from diptych.world.scene import COLORS, Family, Scene, new_scene

SMALLEST, LARGEST = 40, 200_000
USEFUL = 152  # memes that an evaluation split should have at least, where the total allows it
VOCABULARY_SIZE = 1200
KIND = "a world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadruple:
    """Two scenes whose subjects wear different families of colors, and a remark about each family."""

    scenes: tuple[Scene, Scene]
    remarks: tuple[Remark, Remark]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meme:
    """One scene with one remark; `number` is from 1 and says nothing about what goes together."""

    number: int
    scene: Scene
    remark: Remark
    images: str = "img/{}"

    @property
    def key(self) -> str:
        """Of its picture and its regions."""
        return f"{self.number:05d}"

    @property
    def image(self) -> str:
        """Its picture below the root."""
        return self.images.replace("{}", f"{self.key}.png")

    @property
    def hateful(self) -> bool:
        return self.remark.hits(self.scene)


class Miniature:
    """The memes of a world; equal sizes and seeds make equal memes.

    Args:
        size: number of memes; a multiple of four.
        images: where pictures lie below the root; `{}` stands for the name of the file.

    Raises:
        ConfigError: the size or the seed is impossible.
    """

    def __init__(self, size: int, seed: int, *, images: str = "img/{}") -> None:
        if size % 4 or not SMALLEST <= size <= LARGEST:
            raise ConfigError(
                f"size is {size}; expected a multiple of four (memes come in fours) from {SMALLEST} to "
                f"{LARGEST}."
            )
        if seed < 0:
            raise ConfigError(f"seed is {seed}; expected 0 or more.")
        self.size, self.seed = size, seed
        self.quadruples = list(make_quadruples(size // 4, seed))
        self.rows = split_quadruples(len(self.quadruples))
        numbers: Int[ndarray, " N"] = np.random.default_rng([seed, 1]).permutation(size) + 1
        self._fours = [
            [
                Meme(number=int(number), scene=scene, remark=remark, images=images)
                for number, (scene, remark) in zip(
                    numbers[4 * row : 4 * row + 4], product(four.scenes, four.remarks), strict=True
                )
            ]
            for row, four in enumerate(self.quadruples)
        ]

    def splits(self) -> Mapping[str, list[Meme]]:
        """The memes of every split, by number."""
        return {
            split: sorted((meme for four in self._fours[rows] for meme in four), key=lambda m: m.number)
            for split, rows in self.rows.items()
        }

    def write_pictures(self, folder: Path, progress: Progress | None = None, *, tsv: bool = False) -> None:
        """Write the pictures, and what a detector saw in them as `features/` and perhaps `features.tsv`."""
        (folder / self._fours[0][0].image).parent.mkdir(parents=True, exist_ok=True)
        meta = FeatureMeta(
            feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
        )
        write_store(folder / "features", self._pictures(folder, progress), meta)
        store = FeatureStore(folder / "features")
        if tsv:
            write_tsv(folder / "features.tsv", ((key, store[key]) for key in store))

    def write_vocabulary(self, path: Path) -> int:
        """Learn the vocabulary of the training split: its memes, and captions of its scenes.

        Returns:
            Number of its tokens.
        """
        generator = np.random.default_rng([self.seed, 4])
        train = self.quadruples[self.rows["train"]]
        remarks = [remark.text for four in train for remark in four.remarks]
        scenes = [scene for four in train for scene in four.scenes]
        sentences = [sentence for scene in scenes for sentence in captions(generator, scene)]
        tokens = learn_vocabulary([*remarks, *sentences], VOCABULARY_SIZE)
        write_vocabulary(path, tokens)
        return len(tokens)

    def _pictures(self, folder: Path, progress: Progress | None) -> Iterator[tuple[str, Regions]]:
        """Paint every meme, and yield what a detector sees in it."""
        for row, four in enumerate(self._fours):
            plain = {id(scene): draw_scene(scene) for scene in self.quadruples[row].scenes}
            for meme in four:
                picture = draw_meme(
                    plain[id(meme.scene)],
                    meme.remark.top,
                    meme.remark.bottom,
                    generator=np.random.default_rng([self.seed, 5, meme.number]),
                )
                picture.save(folder / meme.image, compress_level=3)
                yield meme.key, detect(meme.scene, np.random.default_rng([self.seed, 3, meme.number]))
            if progress is not None:
                progress(4 * row + 4, self.size)


def split_quadruples(count: int) -> dict[str, slice]:
    """Which of `count` quadruples make which split, in about the proportions of the challenge.

    Evaluation splits of small worlds are larger than their share, so that a score means something.
    `dev_unseen` shares four fifths of `dev_seen`, as in the challenge 400 of 500.
    """
    least = min(USEFUL // 4, count // 10)
    dev, seen, unseen = (max(1, least, round(count * share / 12140)) for share in (500, 1000, 2000))
    new = max(1, round(0.28 * dev))
    train = count - dev - new - seen - unseen
    shared = round(0.8 * dev)
    ends = np.cumsum([train, dev, new, seen, unseen]).tolist()
    return {
        "train": slice(0, train),
        "dev_seen": slice(train, ends[1]),
        "dev_unseen": slice(ends[1] - shared, ends[2]),
        "test_seen": slice(ends[2], ends[3]),
        "test_unseen": slice(ends[3], ends[4]),
    }


def make_quadruples(count: int, seed: int) -> Iterator[Quadruple]:
    """No text occurs twice, so none crosses splits; scenes differ by construction."""
    seen: set[str] = set()
    for number in range(count):
        generator = np.random.default_rng([seed, 2, number])
        yield Quadruple(
            scenes=(new_scene(generator, "warm"), new_scene(generator, "cool")),
            remarks=(_new_remark(generator, "warm", seen), _new_remark(generator, "cool", seen)),
        )


def _new_remark(generator: Generator, about: Family, seen: set[str]) -> Remark:
    while (remark := grumble(generator, about)).text in seen:
        pass
    seen.add(remark.text)
    return remark
