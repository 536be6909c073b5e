"""Scenes of the miniature world with questions about them, for data sets of questions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.datasets.base import require_size
from diptych.datasets.scene_world import write_scenes
from diptych.types import Progress
from diptych.world import Question, Scene, ask, captions, new_scene

SMALLEST, LARGEST = 40, 400_000
EACH = 4  # questions about one scene


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedScene:
    """A scene and questions about it; `number` counts scenes from 1, over all parts."""

    number: int
    scene: Scene
    questions: tuple[Question, ...]


class QuestionWorld:
    """Scenes in the parts `train`, `val` and `test`; equal sizes and seeds give equal scenes.

    Args:
        size: number of questions; an eighth belongs to val and to test each.
        seed: seed of all random numbers, from 0.
        topics: of the questions; None allows all.

    Raises:
        ConfigError: the size or the seed is invalid.
    """

    def __init__(self, size: int, seed: int, topics: tuple[str, ...] | None = None) -> None:
        require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="questions", each=EACH)
        self.size, self.seed = size, seed
        self.scenes = [self._asked(number, topics) for number in range(1, size // EACH + 1)]
        # Two at least: data sets divide val or test once more.
        held = max(2, len(self.scenes) // 8)
        ends = (len(self.scenes) - 2 * held, len(self.scenes) - held)
        self.parts = {
            "train": self.scenes[: ends[0]],
            "val": self.scenes[ends[0] : ends[1]],
            "test": self.scenes[ends[1] :],
        }

    def _asked(self, number: int, topics: tuple[str, ...] | None) -> AskedScene:
        generator = np.random.default_rng([self.seed, 2, number])
        scene = new_scene(generator, "warm" if generator.random() < 0.5 else "cool")
        # Asked before they are filtered, so the scenes of all data sets of questions are drawn alike.
        questions = [one for one in ask(generator, scene) if topics is None or one.topic in topics]
        return AskedScene(number=number, scene=scene, questions=tuple(questions[:EACH]))

    def write(self, folder: Path, key: Callable[[AskedScene], str], progress: Progress | None) -> None:
        """Write `images/KEY.jpg`, the regions as `features/`, and a vocabulary of the part `train`."""
        keyed = [(key(asked), asked.number, asked.scene) for asked in self.scenes]
        write_scenes(folder, keyed, seed=self.seed, texts=self._texts(), progress=progress, each=EACH)

    def _texts(self) -> Iterator[str]:
        generator = np.random.default_rng([self.seed, 4])
        for asked in self.parts["train"]:
            yield from captions(generator, asked.scene)
            for question in asked.questions:
                yield from (question.text, question.answer)
