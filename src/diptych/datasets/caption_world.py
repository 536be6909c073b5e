"""Scenes of the miniature world with captions in English and German, for data sets of captions."""

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.datasets.base import require_size
from diptych.datasets.scene_world import write_scenes
from diptych.types import Progress
from diptych.world import Bilingual, Scene, describe, new_scene, tokenized

SMALLEST, LARGEST = 40, 200_000
LANGUAGES = ("en", "de")
PARTS = ("val", "test", "test2", "test3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """A scene and captions of it; `number` counts scenes from 1, over all parts."""

    number: int
    scene: Scene
    captions: tuple[Bilingual, ...]


class CaptionWorld:
    """Captioned scenes in the parts `train`, `val`, `test`, `test2`, `test3`; equal seeds, equal scenes.

    Args:
        size: number of scenes; a twelfth, but at least 5, belong to each part but the first.
        seed: seed of all random numbers, from 0.
        each: number of captions of a scene.

    Raises:
        ConfigError: the size or the seed is invalid.
    """

    def __init__(self, size: int, seed: int, *, each: int = 5) -> None:
        require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="images")
        self.size, self.seed = size, seed
        self.scenes = [self._captioned(number, each) for number in range(1, size + 1)]
        held = max(5, size // 12)
        train = size - held * len(PARTS)
        ends = [train + held * number for number in range(len(PARTS) + 1)]
        self.parts = {"train": self.scenes[:train]}
        self.parts |= {
            name: self.scenes[start:end] for name, start, end in zip(PARTS, ends[:-1], ends[1:], strict=True)
        }

    def _captioned(self, number: int, each: int) -> Captioned:
        # A stream per scene: a larger world begins with the same scenes.
        generator = np.random.default_rng([self.seed, 2, number])
        scene = new_scene(generator, "warm" if generator.random() < 0.5 else "cool")
        captions = tuple(describe(generator, scene) for _ in range(each))
        return Captioned(number=number, scene=scene, captions=captions)

    def write(self, folder: Path, key: Callable[[Captioned], str], progress: Progress | None) -> None:
        """Write `images/KEY.jpg`, the regions as `features/`, and vocabularies of both languages.

        German nouns begin with capitals: to a cased model, each would be unknown in an uncased vocabulary.
        """
        keyed = [(key(one), one.number, one.scene) for one in self.scenes]
        sentences = [
            text for one in self.parts["train"] for caption in one.captions for text in caption.texts.values()
        ]
        # Tokenized files are in lower case, for cased models too.
        texts = [*sentences, *map(tokenized, sentences)]
        write_scenes(folder, keyed, seed=self.seed, texts=texts, progress=progress, soft=True, cased=True)


def write_packed(path: Path, lines: Iterable[str]) -> None:
    """Write lines as a gzipped file; equal lines give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines)
    path.write_bytes(gzip.compress(content.encode(), mtime=0))  # the time would differ


def karpathy(
    number: int, name: str, split: str, captions: Sequence[str], *, first: int = 0
) -> dict[str, Any]:
    """An image of Karpathy's file.

    Args:
        name: file name of the picture.
        first: id of the first sentence; by default they are counted over all images.
    """
    first = first or number * len(captions)
    sentences = [
        {"tokens": tokenized(text).split(), "raw": text, "imgid": number, "sentid": first + place}
        for place, text in enumerate(captions)
    ]
    ids = [sentence["sentid"] for sentence in sentences]
    return {"sentids": ids, "imgid": number, "sentences": sentences, "split": split, "filename": name}


def karpathy_file(path: Path, images: Sequence[dict[str, Any]], name: str) -> None:
    """Write images of `karpathy`, as the file of a data set."""
    path.write_text(json.dumps({"images": images, "dataset": name}) + "\n", encoding="utf-8")
