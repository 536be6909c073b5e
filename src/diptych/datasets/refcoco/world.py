"""A miniature world in the layout of RefCOCO: expressions that fit one thing of a picture."""

import json
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from diptych.datasets.base import require_size
from diptych.datasets.coco import NAMES, coco_key
from diptych.features import write_store
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Progress, Regions
from diptych.world import Scene, Thing, captions, detect, draw_scene, new_scene, observe
from diptych.world.render import CLASSES, FEATURE_DIM
from diptych.world.scene import COLORS

SMALLEST, LARGEST = 40, 200_000
SENTENCES = (3, 1)  # expressions of the two references in a picture
EACH = sum(SENTENCES)
VOCABULARY_SIZE = 1200
QUALITY = 90  # of JPEG
CATEGORIES = {"person": 1} | {name: 2 * place + 3 for place, name in enumerate(NAMES.values())}  # with gaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Referred:
    """A picture, and the numbers of the things to which its references refer."""

    number: int
    split: str
    scene: Scene
    things: tuple[int, ...]

    @property
    def image(self) -> int:
        return 7 * self.number + 2

    @property
    def key(self) -> str:
        return coco_key(self.image, "train2014", "stem")

    def annotation(self, thing: int) -> int:
        """Id of the annotation of a thing."""
        return 100 * self.number + thing + 1


def write_world(
    folder: Path,
    *,
    size: int,
    seed: int,
    progress: Progress | None,
    place: tuple[str, str, str],
    splits: Sequence[str],
    detections: str,
) -> dict[str, int]:
    """Write references, annotations, detections, pictures, both kinds of regions, and a vocabulary.

    Args:
        size: number of expressions.
        place: name of the data set, who divided it, and name of its pickle.
        detections: name of the file of detections.

    Returns:
        Number of expressions of each split.

    Raises:
        ConfigError: the size or the seed is invalid.
    """
    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="expressions", each=EACH)
    count, others = size // EACH, splits[1:]
    held = max(2, count // 8)
    # Held-out splits lie at the end: of 20 pictures with two held for each of three splits, they start at 14,
    # 16 and 18.
    starts = {name: count - held * (len(others) - row) for row, name in enumerate(others)}
    pictures = []
    for number in range(count):
        split = next((name for name in reversed(others) if number >= starts[name]), splits[0])
        pictures.append(_referred(np.random.default_rng([seed, 2, number]), number, split))
    dataset, split_by, name = place
    (folder / dataset).mkdir()
    refs = [*_references(pictures, seed)]
    # Protocol 0 is that of Python 2, which wrote the official files.
    (folder / dataset / name).write_bytes(pickle.dumps(refs, protocol=0))
    (folder / dataset / "instances.json").write_text(json.dumps(_instances(pictures)) + "\n", "utf-8")
    images = folder / "images/mscoco/images/train2014"
    images.mkdir(parents=True)
    meta = FeatureMeta(
        feature_dim=FEATURE_DIM, detector="world", classes=CLASSES, attributes=COLORS, dtype="float16"
    )
    write_store(folder / "features", _pictures(images, pictures, seed, progress), meta)
    found = [(one, detect(one.scene, np.random.default_rng([seed, 6, one.number]))) for one in pictures]
    write_store(folder / "detected", ((one.key, regions) for one, regions in found), meta)
    path = folder / "detections" / f"{dataset}_{split_by}" / detections
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([*_detections(found)]) + "\n", encoding="utf-8")
    texts = [sentence["sent"] for ref in refs if ref["split"] == splits[0] for sentence in ref["sentences"]]
    generator = np.random.default_rng([seed, 4])
    texts += [text for one in pictures if one.split == splits[0] for text in captions(generator, one.scene)]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    return dict(Counter(ref["split"] for ref in refs for _ in ref["sentences"]))


def _referred(generator: Generator, number: int, split: str) -> Referred:
    """A picture with two things of unique color and kind; testA refers to persons, testB to other things."""
    # Redrawn until enough things can be told apart by color and kind; else no expression would fit one alone.
    while True:
        scene = new_scene(generator, "warm" if generator.random() < 0.5 else "cool")
        looks = Counter((thing.color, thing.kind) for thing in scene.things)
        fits = [
            place
            for place, thing in enumerate(scene.things)
            if looks[thing.color, thing.kind] == 1
            and (split not in ("testA", "testB") or (split == "testA") == (thing.kind not in NAMES))
        ]
        if len(fits) >= len(SENTENCES):
            chosen = tuple(generator.permutation(fits)[: len(SENTENCES)].tolist())
            return Referred(number=number, split=split, scene=scene, things=chosen)


def _references(pictures: Sequence[Referred], seed: int) -> Iterator[dict[str, Any]]:
    ref_id = sent_id = 0
    for one in pictures:
        # A stream per picture: a larger world begins with the same sentences.
        generator = np.random.default_rng([seed, 5, one.number])
        # Of three sentences and of one, because references of both kinds occur.
        for thing, count in zip(one.things, SENTENCES, strict=True):
            texts = _expressions(generator, one.scene, thing)[:count]
            sentences = [
                {"sent_id": sent_id + place, "raw": text.upper(), "sent": text, "tokens": text.split()}
                for place, text in enumerate(texts)
            ]
            yield {
                "ref_id": ref_id,
                "ann_id": one.annotation(thing),
                "image_id": one.image,
                "category_id": _category(one.scene.things[thing]),
                "split": one.split,
                "file_name": f"{one.key}_{thing}.jpg",  # with the suffix of the official files
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "sentences": sentences,
            }
            ref_id, sent_id = ref_id + 1, sent_id + len(texts)


def _expressions(generator: Generator, scene: Scene, number: int) -> list[str]:
    """At least three expressions that fit one thing only, in random order."""
    thing = scene.things[number]
    texts = [f"{start}{thing.color} {thing.kind}" for start in ("", "the ", "look for the ")]
    for name in ("kind", "color"):
        value = getattr(thing, name)
        if sum(getattr(other, name) == value for other in scene.things) == 1:
            texts.append(f"the {value}" if name == "kind" else f"the {value} thing")
    if thing is scene.subject:
        texts.append("the largest thing")
    return [texts[place] for place in generator.permutation(len(texts))]


def _category(thing: Thing) -> int:
    return CATEGORIES[NAMES.get(thing.kind, "person")]


def _instances(pictures: Sequence[Referred]) -> dict[str, Any]:
    images, annotations = [], []
    for one in pictures:
        width, height = one.scene.size
        images.append({"id": one.image, "file_name": f"{one.key}.jpg", "width": width, "height": height})
        for place, thing in enumerate(one.scene.things):
            # Things may lie partly outside of a picture, which the reader of boxes refuses.
            x1, y1, x2, y2 = _inside(thing, one.scene)
            annotations.append(
                {
                    "id": one.annotation(place),
                    "image_id": one.image,
                    "category_id": _category(thing),
                    "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                    "area": float((x2 - x1) * (y2 - y1)),
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                    "iscrowd": 0,
                }
            )
    width, height = pictures[0].scene.size
    # One crowd, whose silhouette is run lengths and no polygons: readers must accept both.
    crowd = {"size": [height, width], "counts": [0, 4 * height, (width - 4) * height]}
    annotations.append(
        {
            "id": 900_000_000_001,  # as COCO numbers crowds
            "image_id": pictures[0].image,
            "category_id": 1,
            "bbox": [0.0, 0.0, 4.0, float(height)],
            "area": 4.0 * height,
            "segmentation": crowd,
            "iscrowd": 1,
        }
    )
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    return {
        "info": {},
        "images": images,
        "licenses": [],
        "annotations": annotations,
        "categories": categories,
    }


def _inside(thing: Thing, scene: Scene) -> tuple[int, ...]:
    corners: ndarray = np.array(thing.box).clip(0, [*scene.size, *scene.size])
    return tuple(corners.tolist())


def _pictures(
    images: Path, pictures: Sequence[Referred], seed: int, progress: Progress | None
) -> Iterator[tuple[str, Regions]]:
    """Write pictures, and yield the key and the regions of the annotated boxes of each."""
    for done, one in enumerate(pictures, 1):
        draw_scene(one.scene).save(images / f"{one.key}.jpg", quality=QUALITY)
        yield one.key, observe(one.scene, np.random.default_rng([seed, 3, one.number]))
        if progress is not None:
            progress(EACH * done, EACH * len(pictures))


def _detections(found: Sequence[tuple[Referred, Regions]]) -> Iterator[dict[str, Any]]:
    number = 0
    for one, regions in found:
        assert regions.labels is not None and regions.scores is not None, "of the world's detector"
        for box, label, score in zip(regions.boxes, regions.labels, regions.scores, strict=True):
            x1, y1, x2, y2 = (round(float(side), 2) for side in box)
            name = NAMES.get(CLASSES[label], "person")
            yield {
                "det_id": number,
                "image_id": one.image,
                "category_id": CATEGORIES[name],
                "category_name": name,
                "box": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                "score": round(float(score), 4),
            }
            number += 1
