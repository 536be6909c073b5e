"""The miniature world, from which every data set writes its own files.

A remark complains about warm or cool colors. A meme is hateful exactly if the subject of its picture, the
largest thing, has the kind of color that its text complains about. Memes come in fours, two pictures by two
texts. Every picture and every text is hateful once and benign once, so neither alone predicts the label.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from numpy.random import Generator

from diptych.datasets.base import require_size
from diptych.features import FeatureStore, write_store
from diptych.features.tsv import write_tsv
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world.language import Remark, captions, complain
from diptych.world.render import CLASSES, FEATURE_DIM, detect, draw_meme, draw_scene
from diptych.world.scene import COLORS, Family, Scene, new_scene

SMALLEST, LARGEST = 40, 200_000
USEFUL = 152  # smallest size of an evaluation split, if the world is large enough
VOCABULARY_SIZE = 1200
KIND = "a world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadruple:
    """Two scenes whose subjects have different families of colors, and a remark about each family."""

    scenes: tuple[Scene, Scene]
    remarks: tuple[Remark, Remark]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meme:
    """A scene with a remark. `number`, from 1, is random and does not tell which memes form a quadruple.

    Args:
        siblings: numbers of the meme with this text and another picture, and of that with this picture and
            another text. Both have the other label.
    """

    number: int
    scene: Scene
    remark: Remark
    siblings: tuple[int, int] = (0, 0)
    images: str = "img/{}"

    @property
    def key(self) -> str:
        """Key of the picture and its regions."""
        return f"{self.number:05d}"

    @property
    def image(self) -> str:
        """Path of the picture below the root."""
        return self.images.replace("{}", f"{self.key}.png")

    @property
    def hateful(self) -> bool:
        return self.remark.hits(self.scene)


class Miniature:
    """The memes of a miniature world; equal sizes and seeds give equal memes.

    Args:
        size: number of memes; a multiple of four.
        seed: seed of all random numbers, from 0.
        images: path of a picture below the root; `{}` stands for the file name.

    Raises:
        ConfigError: the size or the seed is invalid.
    """

    def __init__(self, size: int, seed: int, *, images: str = "img/{}") -> None:
        require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="memes", each=4)
        self.size, self.seed = size, seed
        # Every kind of random numbers has its own stream [seed, n], so that changing one leaves the others.
        self.quadruples = list(make_quadruples(size // 4, seed))
        # Splits take whole quadruples, so no picture and no text of an evaluation split is in training.
        self.rows = split_quadruples(len(self.quadruples))
        # Shuffled: consecutive numbers would tell a model the quadruple, and so the label.
        numbers: Int[ndarray, " N"] = np.random.default_rng([seed, 1]).permutation(size) + 1
        self._fours = [
            [
                # In this order, the other scene is two places away, and the other remark one place.
                Meme(
                    number=own[at],
                    scene=scene,
                    remark=remark,
                    siblings=(own[at ^ 2], own[at ^ 1]),
                    images=images,
                )
                for own in [numbers[4 * row : 4 * row + 4].tolist()]
                for at, (scene, remark) in enumerate(product(four.scenes, four.remarks))
            ]
            for row, four in enumerate(self.quadruples)
        ]

    def splits(self) -> Mapping[str, list[Meme]]:
        """Return the memes of every split, sorted by number."""
        return {
            split: sorted((meme for four in self._fours[rows] for meme in four), key=lambda m: m.number)
            for split, rows in self.rows.items()
        }

    def write_pictures(self, folder: Path, progress: Progress | None = None, *, tsv: bool = False) -> None:
        """Write the pictures and their regions as `features/`; with `tsv` also as `features.tsv`."""
        (folder / self._fours[0][0].image).parent.mkdir(parents=True, exist_ok=True)
        meta = FeatureMeta(
            feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
        )
        write_store(folder / "features", self._pictures(folder, progress), meta)
        store = FeatureStore(folder / "features")
        if tsv:
            write_tsv(folder / "features.tsv", ((key, store[key]) for key in store))

    def write_vocabulary(self, path: Path) -> int:
        """Learn a vocabulary from the training split: the texts of memes, and captions of their scenes.

        Returns:
            Number of tokens.
        """
        # Texts of the training split alone, so that unknown words occur in evaluation, as in real data.
        generator = np.random.default_rng([self.seed, 4])
        train = self.quadruples[self.rows["train"]]
        remarks = [remark.text for four in train for remark in four.remarks]
        scenes = [scene for four in train for scene in four.scenes]
        sentences = [sentence for scene in scenes for sentence in captions(generator, scene)]
        tokens = learn_vocabulary([*remarks, *sentences], VOCABULARY_SIZE)
        write_vocabulary(path, tokens)
        return len(tokens)

    def _pictures(self, folder: Path, progress: Progress | None) -> Iterator[tuple[str, Regions]]:
        """Write the picture of every meme, and yield its key and regions."""
        for row, four in enumerate(self._fours):
            # Two memes share each scene, which is painted once.
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
    """Assign `count` quadruples to splits, in about the proportions of Hateful Memes.

    In small worlds, evaluation splits are larger than that, so that scores are meaningful. `dev_unseen` has
    four fifths of `dev_seen`, as the original has 400 of 500.
    """
    # In quadruples: 152 memes are 38 of them.
    least = min(USEFUL // 4, count // 10)
    # 12,140 is the number of memes of the challenge; the shares are those of dev_seen and both test splits.
    dev, seen, unseen = (max(1, least, round(count * share / 12140)) for share in (500, 1000, 2000))
    new = max(1, round(0.28 * dev))  # 140 of 500 in the original
    train = count - dev - new - seen - unseen
    shared = round(0.8 * dev)
    ends = np.cumsum([train, dev, new, seen, unseen]).tolist()
    return {
        "train": slice(0, train),
        "dev_seen": slice(train, ends[1]),
        # Begins inside of dev_seen: the two share quadruples, as in the original.
        "dev_unseen": slice(ends[1] - shared, ends[2]),
        "test_seen": slice(ends[2], ends[3]),
        "test_unseen": slice(ends[3], ends[4]),
    }


def make_quadruples(count: int, seed: int) -> Iterator[Quadruple]:
    """Draw quadruples. No text occurs twice, so none is in two splits; scenes differ by construction."""
    seen: set[str] = set()
    for number in range(count):
        generator = np.random.default_rng([seed, 2, number])
        yield Quadruple(
            scenes=(new_scene(generator, "warm"), new_scene(generator, "cool")),
            remarks=(_new_remark(generator, "warm", seen), _new_remark(generator, "cool", seen)),
        )


def _new_remark(generator: Generator, about: Family, seen: set[str]) -> Remark:
    # Ends soon: 50,000 remarks of a family at most, of 330,000 even without opener and tail.
    while (remark := complain(generator, about)).text in seen:
        pass
    seen.add(remark.text)
    return remark
