"""RefCOCO, RefCOCO+ (Yu et al., 2016, https://arxiv.org/abs/1608.00272) and RefCOCOg as data sets.

The layout is that of lichengunc/refer:

    {refcoco,refcoco+,refcocog}/refs({unc,google,umd}).p
    {refcoco,refcoco+,refcocog}/instances.json
    detections/{refcoco_unc,...}/res101_coco_minus_refer_notime_dets.json     of MAttNet, if asked for
    images/mscoco/images/train2014/COCO_train2014_000000581857.jpg
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.datasets.base import DuplicateId, Split, require_split
from diptych.datasets.coco import coco_key, coco_number
from diptych.datasets.json_records import write_list
from diptych.datasets.photographs import require_kind
from diptych.datasets.refcoco.boxes import Candidates
from diptych.datasets.refcoco.records import TEXTS, Box, read_instances, read_refs, read_results
from diptych.errors import ConfigError, FormatError
from diptych.files import require_file
from diptych.metrics.grounding import box_overlap
from diptych.predictions import Predictions
from diptych.types import Example, Pair, Progress, RegionSource

SPLITS = {
    "unc": ("train", "val", "testA", "testB"),
    "google": ("train", "val"),
    "umd": ("train", "val", "test"),
}
DIVISIONS = {"refcoco": ("unc", "google"), "refcoco+": ("unc",), "refcocog": ("umd", "google")}
BOXES = ("annotated", "detected", "detected+annotated")
FOLDERS = ("", "data", "refer/data")
PICTURES = (
    "images/mscoco/images/train2014", "mscoco/images/train2014", "images/train2014", "train2014",
    "coco/train2014", "images",
)  # fmt: skip
DETECTIONS = "res101_coco_minus_refer_notime_dets.json"


class RefCoco(Split):
    """The expressions of one split, in file order; the target is the box x1 y1 x2 y2 in pixels.

    Args:
        root: folder of the layout above, or one whose `data` or `refer/data` is it.
        split: `train` or `val`; of `unc` also `testA` (persons) and `testB` (other things), of `umd` `test`.
        dataset: `refcoco`, `refcoco+` or `refcocog`.
        split_by: who divided the pictures: `unc`, `google` or `umd`.
        boxes: candidates for end-to-end models: all `annotated` boxes of a picture, `detected` ones, or
            `detected+annotated`, which adds annotated ones in training (split `train`) only.
        detections: file of detections below the root; None looks for MAttNet's.
        text: form of the expression: `tokens`, `sent` or `raw`.
        image_key: key of a picture in feature stores: `stem` (`COCO_train2014_000000581857`), `number` or
            `padded12`; see `photographs.image_key`.
        limit: use only the first expressions, up to this number.

    Raises:
        FormatError: names the file and the first invalid reference.
        ConfigError: a setting has another value, or there is no such split.
    """

    name = "refcoco"
    noun = "expression"
    measure = "accuracy"

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        dataset: str = "refcoco",
        split_by: str = "unc",
        boxes: str = "annotated",
        detections: str | None = None,
        text: str = "tokens",
        image_key: str = "stem",
        limit: int | None = None,
    ) -> None:
        if split_by not in DIVISIONS.get(dataset, ()):
            known = ", ".join(f"{name} by {' or '.join(by)}" for name, by in DIVISIONS.items())
            raise ConfigError(
                f"data.dataset is {dataset!r} and data.split_by {split_by!r}; expected one of {known}."
            )
        if boxes not in BOXES or text not in TEXTS:
            raise ConfigError(
                f"data.boxes is {boxes!r} (expected one of {BOXES}), data.text {text!r} (one of {TEXTS})."
            )
        self.settings = {
            "dataset": dataset,
            "split_by": split_by,
            "boxes": boxes,
            "detections": detections,
            "text": text,
            "image_key": require_kind(image_key),
        }
        super().__init__(root, split, limit=limit)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        """Splits by the name of the division: reading the pickle would take seconds."""
        found = _folder(root, **settings) is not None
        return SPLITS.get(settings.get("split_by", "unc"), ()) if found else ()

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        folder = _folder(root, **settings)
        require_split(split, root, cls.splits(root, **settings))
        assert folder is not None
        files = [folder / _refs(settings.get("split_by", "unc")), folder / "instances.json"]
        if settings.get("boxes", "annotated") != "annotated":
            files.append(_detections(root, folder, settings))
        return tuple(require_file(path, "a file of RefCOCO") for path in files)

    def read(self) -> Iterable[Example]:
        refs, instances, *_ = self.files
        known, seen = read_instances(instances), set[str]()
        splits: dict[str, None] = {}
        for one in read_refs(refs, self.settings["text"]):
            # All that occur, for the message: a dictionary keeps their order.
            splits[one.split] = None
            if one.split != self.split:
                continue
            # Annotation ids alone would join files of two releases without a word.
            image, box = known.boxes.get(one.annotation, (None, None))
            if image != one.image or box is None:
                got = "is not there" if image is None else f"is of picture {image}"
                raise FormatError(
                    f"{one.where}: ann_id {one.annotation} {got} in {instances.name}; expected an annotation "
                    f"of picture {one.image}. Are both files of the same data set?"
                )
            if (name := f"{one.ref_id}/{one.sent_id}") in seen:
                raise DuplicateId(f"{one.where}: sent_id {one.sent_id} occurs a second time.")
            seen.add(name)
            pair = Pair(image=coco_key(one.image, "train2014", self.settings["image_key"]), text=one.text)
            yield Example(id=name, pairs=(pair,), target=box)
        if not seen:
            raise FormatError(f"{refs}: no reference is of split {self.split}; it has {', '.join(splits)}.")

    @property
    def regions(self) -> RegionSource:
        boxes = self.settings["boxes"]
        # In evaluation, an annotated box among the candidates would give the answer away.
        both = boxes == "detected+annotated" and self.split == "train"
        detections = None if boxes == "annotated" else self.files[2]
        return Candidates(self.files[1], annotated=both or detections is None, detections=detections)

    @cached_property
    def _picture_folder(self) -> Path:
        folders = [self.root / name for name in PICTURES]
        return next((path for path in folders if path.is_dir()), folders[0])

    def image_path(self, key: str) -> Path:
        # Whatever form the keys have, the file has COCO's name.
        return self._picture_folder / f"{coco_key(coco_number(key), 'train2014', 'stem')}.jpg"

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write a list of `ref_id`, `sent_id` and `box` (x1 y1 x2 y2); VL-BERT's file lacks the second.

        Raises:
            FormatError: an expression has no box.
        """
        predictions = predictions.unique().align(self.ids)
        if predictions.boxes is None:
            raise FormatError(f"{path}: the predictions have no boxes; expected those of the task `ground`.")
        rows = zip(map(_numbers, self.ids), predictions.boxes.tolist(), strict=True)
        write_list(path, ({"ref_id": ref, "sent_id": sent, "box": box} for (ref, sent), box in rows))

    def read_predictions(self, path: Path) -> Predictions:
        """Read a result file; without `sent_id`, the n-th box of a reference is of its n-th expression."""
        # Of each reference, the expressions that have no box yet, in the order of the split.
        waiting: dict[int, list[int]] = {}
        for ref, sentence in map(_numbers, self.ids):
            waiting.setdefault(ref, []).append(sentence)
        found: dict[str, Box] = {}
        for ref, given, box in read_results(path):
            left = waiting.get(ref, [])
            if not left or given not in (None, *left):
                of = f"ref_id {ref}" if given is None else f"ref_id {ref}, sent_id {given}"
                raise FormatError(
                    f"{path}: {of} occurs once too often, or is not of {self.split}; expected one box for "
                    "each of its expressions."
                )
            taken = left[0] if given is None else given
            # A second box of the same expression then finds nothing left.
            left.remove(taken)
            found[f"{ref}/{taken}"] = box
        # Also of no box: the shape 0 x 4.
        boxes = np.array([*found.values()], float).reshape(-1, 4)
        try:
            return Predictions(ids=tuple(found), boxes=boxes, form="boxes").align(self.ids)
        except FormatError as error:
            raise FormatError(f"{path}: not of split {self.split!r}: {error}") from error

    def breakdown(self, predictions: Predictions) -> Mapping[str, Mapping[str, Float[ndarray, " U"]]]:
        """Accuracy if a box includes its last pixel, as in VL-BERT's and Volta's evaluation."""
        if predictions.boxes is None:
            return {}
        targets = dict(self.table.target_column())
        gold = np.array([targets[key] for key in predictions.ids], float)
        # Those programs count pixels: a box from 3 to 5 is three wide. Moving both far ends by 1 does the
        # same.
        last = np.array([0, 0, 1, 1])
        overlaps = box_overlap(predictions.boxes + last, gold + last)
        return {"": {"accuracy_last_pixel": (overlaps >= 0.5).astype(float)}}

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.refcoco.world import write_world

        dataset, split_by = settings.get("dataset", "refcoco"), settings.get("split_by", "unc")
        return write_world(
            folder,
            size=size,
            seed=seed,
            progress=progress,
            place=(dataset, split_by, _refs(split_by)),
            splits=SPLITS[split_by],
            detections=DETECTIONS,
        )


def _refs(split_by: str) -> str:
    return f"refs({split_by}).p"


def _folder(root: Path, **settings: Any) -> Path | None:
    dataset, refs = settings.get("dataset", "refcoco"), _refs(settings.get("split_by", "unc"))
    places = (root / folder / dataset for folder in FOLDERS)
    return next((path for path in places if (path / refs).is_file()), None)


def _detections(root: Path, folder: Path, settings: Mapping[str, Any]) -> Path:
    if (given := settings.get("detections")) is not None:
        return root / str(given)
    name = f"{settings.get('dataset', 'refcoco')}_{settings.get('split_by', 'unc')}"
    # MAttNet's tree first, then the other places in which the file is found.
    places = [folder.parent / "detections" / name, root / "detections" / name, folder / "proposal"]
    return next((path for one in places if (path := one / DETECTIONS).is_file()), places[0] / DETECTIONS)


def _numbers(name: str) -> tuple[int, int]:
    ref, _, sentence = name.partition("/")
    return int(ref), int(sentence)
