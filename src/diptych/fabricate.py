"""The miniature world on disk: a complete Hateful-Memes-style folder whose truth is known.

A remark grumbles about warm or about cool colors. A meme is hateful exactly when the subject of its picture,
the largest thing, wears the kind of color that its text grumbles about. Memes come in fours, two pictures by
two texts, so every picture and every text is once hateful and once benign: neither alone says anything.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from numpy.random import Generator

from diptych.datasets.hateful_memes import Meme, write_answers, write_memes
from diptych.errors import ConfigError
from diptych.features import FeatureStore, write_store
from diptych.features.tsv import write_tsv
from diptych.files import atomic_folder, require_new
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Regions
from diptych.world.language import Remark, captions, grumble
from diptych.world.render import CLASSES, FEATURE_DIM, detect, draw_meme, draw_scene
from diptych.world.scene import COLORS, Family, Scene, new_scene

SMALLEST, LARGEST = 40, 200_000
USEFUL = 152  # memes that an evaluation split should have at least, where the total allows it
VOCABULARY_SIZE = 1200
DESCRIPTION = "world.json"
KIND = "a world"
LABEL_MEANING = (
    "1 (hateful) when the largest thing of the picture wears the kind of color, warm or cool, that the text "
    "grumbles about; 0 (benign) otherwise"
)
README = """# A miniature world of memes

{size} little memes made by `diptych world` with seed {seed}, in the layout of the Hateful Memes challenge.

A text grumbles about warm colors (ruby, gold, orange) or about cool ones (blue, teal, purple). A meme is
`hateful` (1) when the largest thing of its picture wears the kind of color that the text grumbles about, else
`benign` (0). Memes come in fours, two pictures by two texts, so neither the picture nor the text alone tells.

- `train`, `dev_seen`, `dev_unseen`, `test_seen`, `test_unseen` `.jsonl`: `id`, `img`, `label`, `text`; the
  test splits without `label`, which `test_*.answers.jsonl` hold. `dev_unseen` shares most of `dev_seen`.
- `img/`: the pictures, with the text on them.
- `features/`, `features.tsv`: what a detector saw in each picture, as a feature store and as a TSV.
- `vocabulary.txt`: WordPiece vocabulary of the world's language.
- `world.json`: the same facts for programs.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldReport:
    """What was made: `splits` counts the memes of each annotation file, `vocabulary` the tokens."""

    root: Path
    size: int
    seed: int
    splits: dict[str, int]
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadruple:
    """Two scenes whose subjects wear different families of colors, and a remark about each family."""

    scenes: tuple[Scene, Scene]
    remarks: tuple[Remark, Remark]


def fabricate(
    out: Path | str,
    *,
    size: int = 2000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> WorldReport:
    """Make a folder of memes with annotations, pictures, regions and a vocabulary. Same seed, same bytes.

    Args:
        size: number of memes; a multiple of four.
        overwrite: replace `out`, if it is such a folder.
        progress: called with the number of finished memes and `size`.

    Raises:
        ConfigError: the size is impossible, or something else stands at `out`.
    """
    out = Path(out)
    _require_possible(out, size, seed, overwrite)
    quadruples = list(make_quadruples(size // 4, seed))
    numbers = (
        np.random.default_rng([seed, 1]).permutation(size) + 1
    )  # ids say nothing about what goes together
    with atomic_folder(out, kind=KIND, overwrite=overwrite) as folder:
        splits = _write_annotations(folder, quadruples, numbers)
        (folder / "img").mkdir()
        meta = FeatureMeta(
            feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
        )
        write_store(folder / "features", _pictures(folder, quadruples, numbers, seed, progress), meta)
        store = FeatureStore(folder / "features")
        write_tsv(folder / "features.tsv", ((key, store[key]) for key in store))
        vocabulary = _write_vocabulary(folder / "vocabulary.txt", quadruples[: splits["train"] // 4], seed)
        report = WorldReport(root=out, size=size, seed=seed, splits=splits, vocabulary=vocabulary)
        _write_description(folder, report)
    return report


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


def _require_possible(out: Path, size: int, seed: int, overwrite: bool) -> None:
    if size % 4 or not SMALLEST <= size <= LARGEST:
        raise ConfigError(
            f"size is {size}; expected a multiple of four (memes come in fours) from {SMALLEST} to {LARGEST}."
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or more.")
    require_new(out, overwrite=overwrite, kind=KIND)


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


def _write_annotations(
    folder: Path, quadruples: list[Quadruple], numbers: Int[ndarray, " N"]
) -> dict[str, int]:
    """Write all annotation files; count the memes of each split."""
    memes = [
        [
            Meme(
                id=str(number), image=f"img/{number:05d}.png", text=remark.text, label=int(remark.hits(scene))
            )
            for number, scene, remark in _pairs(quadruple, numbers[4 * row : 4 * row + 4])
        ]
        for row, quadruple in enumerate(quadruples)
    ]
    counts = {}
    for split, rows in split_quadruples(len(quadruples)).items():
        members = sorted((meme for four in memes[rows] for meme in four), key=lambda meme: int(meme.id))
        hidden = split.startswith("test")
        write_memes(folder / f"{split}.jsonl", members, labels=not hidden)
        if hidden:
            write_answers(folder / f"{split}.answers.jsonl", members)
        counts[split] = len(members)
    return counts


def _pairs(quadruple: Quadruple, numbers: Int[ndarray, " 4"]) -> Iterator[tuple[int, Scene, Remark]]:
    """The four memes of a quadruple with their numbers; two of them are hateful."""
    pairs = product(quadruple.scenes, quadruple.remarks)
    return ((int(number), *pair) for number, pair in zip(numbers, pairs, strict=True))


def _pictures(
    folder: Path,
    quadruples: list[Quadruple],
    numbers: Int[ndarray, " N"],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, Regions]]:
    """Paint every meme, and yield what a detector sees in it."""
    for row, quadruple in enumerate(quadruples):
        plain = {id(scene): draw_scene(scene) for scene in quadruple.scenes}
        for number, scene, remark in _pairs(quadruple, numbers[4 * row : 4 * row + 4]):
            key = f"{number:05d}"
            meme = draw_meme(
                plain[id(scene)],
                remark.top,
                remark.bottom,
                generator=np.random.default_rng([seed, 5, number]),
            )
            meme.save(folder / "img" / f"{key}.png", compress_level=3)
            yield key, detect(scene, np.random.default_rng([seed, 3, number]))
        if progress is not None:
            progress(4 * row + 4, len(numbers))


def _write_vocabulary(path: Path, quadruples: list[Quadruple], seed: int) -> int:
    """Learn the vocabulary of the training split: its memes, and captions of its scenes."""
    generator = np.random.default_rng([seed, 4])
    remarks = [remark.text for quadruple in quadruples for remark in quadruple.remarks]
    scenes = [scene for quadruple in quadruples for scene in quadruple.scenes]
    sentences = [sentence for scene in scenes for sentence in captions(generator, scene)]
    tokens = learn_vocabulary([*remarks, *sentences], VOCABULARY_SIZE)
    write_vocabulary(path, tokens)
    return len(tokens)


def _write_description(folder: Path, report: WorldReport) -> None:
    values = asdict(report) | {"label": LABEL_MEANING}
    del values["root"]
    (folder / DESCRIPTION).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(README.format(**values), encoding="utf-8")
