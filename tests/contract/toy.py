"""A data set that is as unlike Hateful Memes as the types allow.

Two pairs an example, three classes, integer ids, JSON in and out, no labels in its test split.
"""

import json
from pathlib import Path

import numpy as np

from diptych.datasets import Split
from diptych.datasets.base import require_split
from diptych.datasets.miniature import Miniature
from diptych.documents import read_json
from diptych.errors import FormatError
from diptych.files import atomic_file
from diptych.predictions import Predictions
from diptych.types import Example, Pair

NAMES = {"train": "train", "dev_seen": "held", "test_seen": "blind"}


class Toy(Split):
    name = "toy"
    noun = "couple"
    labels = ("neither", "one", "both")

    @classmethod
    def splits(cls, root, **settings):
        return tuple(split for split in NAMES.values() if (root / f"toy-{split}.json").is_file())

    @classmethod
    def find_files(cls, root, split, **settings):
        require_split(split, root, cls.splits(root))
        return (root / f"toy-{split}.json",)

    def read(self):
        records = read_json(self.files[0], list[dict])
        for record in records:
            if not isinstance(record.get("couple"), int):
                raise FormatError(
                    f"{self.files[0]}: `couple` is {record.get('couple')!r}; expected a number."
                )
            yield Example(
                id=str(record["couple"]),
                pairs=tuple(Pair(image=key, text=text) for key, text in record["pairs"]),
                target=None if "is" not in record else self.labels[record["is"]],
            )

    def image_path(self, key):
        return self.root / "pictures" / f"{key}.png"

    def write(self, predictions, path):
        predictions = predictions.unique().align(self.ids)
        rows = zip(predictions.ids, predictions.scores.tolist(), predictions.answers, strict=True)
        with atomic_file(path, "w", encoding="utf-8") as file:
            json.dump([{"couple": int(k), "scores": s, "is": self.labels.index(a)} for k, s, a in rows], file)

    def read_predictions(self, path):
        rows = read_json(path, list[dict])
        return Predictions(
            ids=tuple(str(row["couple"]) for row in rows),
            scores=np.array([row["scores"] for row in rows]),
            answers=tuple(self.labels[row["is"]] for row in rows),
            classes=self.labels,
        )

    @classmethod
    def fabricate(cls, folder, *, size, seed, progress=None, **settings):
        world = Miniature(size, seed, images="pictures/{}")
        counts = {}
        for split, memes in world.splits().items():
            if split not in NAMES:
                continue
            couples = [(memes[place], memes[place + 1]) for place in range(0, len(memes), 2)]
            records = [
                {"couple": one.number, "pairs": [(meme.key, meme.remark.text) for meme in (one, two)]}
                | ({} if split == "test_seen" else {"is": one.hateful + two.hateful})
                for one, two in couples
            ]
            (folder / f"toy-{NAMES[split]}.json").write_text(json.dumps(records), encoding="utf-8")
            counts[NAMES[split]] = len(records)
        world.write_pictures(folder, progress)
        world.write_vocabulary(folder / "vocabulary.txt")
        return counts


NODE = {"_target_": f"{Path(__file__).parent.parent.name}.contract.toy.Toy"}
