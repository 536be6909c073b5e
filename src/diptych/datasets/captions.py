"""What data sets of captions share: their splits, Karpathy's files, and the file of predictions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.datasets.joined import JoinedSplit
from diptych.datasets.json_records import Record, read_list, read_members, write_list
from diptych.datasets.photographs import image_key, require_kind
from diptych.errors import FormatError
from diptych.predictions import Predictions
from diptych.types import Example, Pair

SCORE, SCORES, RANKING = "matches", "scores", "ranking"


class MatchSplit(JoinedSplit):
    """Pictures and texts of one split whose file of predictions is that of `write_matches`."""

    noun = "caption"

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write scores and rankings of all captions as JSON; see `write_matches`."""
        write_matches(predictions.unique().align(self.ids), path)

    def read_predictions(self, path: Path) -> Predictions:
        """Read a file of `write`.

        Raises:
            FormatError: a record is invalid, or the file is of another split.
        """
        return read_matches(path, self.ids)


class CaptionSplit(MatchSplit):
    """The captions of one split, each with its picture; `A+B` is the split A followed by the split B.

    An example has one picture, one caption, and the target 1, because all pairs are true.

    Args:
        image_key: key of a picture in the feature store; see `photographs.image_key`.

    Raises:
        ConfigError: the split does not exist, or the kind of key is unknown.
        FormatError: a record is invalid; names file and record.
    """

    def __init__(
        self, root: Path | str, split: str, *, image_key: str = "stem", limit: int | None = None
    ) -> None:
        self.settings = {"image_key": require_kind(image_key)}
        super().__init__(root, split, limit=limit)

    def example(self, name: str, picture: str, caption: str, where: str) -> Example:
        """A true pair.

        Args:
            picture: file name of the picture.
            where: file and record, for messages.

        Raises:
            FormatError: the caption is empty, or the picture has no valid name.
        """
        text = " ".join(caption.split())  # some captions of COCO end in a line break
        if not text:
            raise FormatError(f"{where}: the caption is empty; expected a sentence.")
        key = image_key(picture, self.settings["image_key"], where=where)
        # Other keys do not tell the file's name.
        files = () if key == Path(picture).stem else (self._file(picture).relative_to(self.root).as_posix(),)
        return Example(id=name, pairs=(Pair(image=key, text=text, files=files),), target=1)

    def _file(self, name: str) -> Path:
        places = [folder / name for folder in self._picture_folders]
        # Where the file would belong, if there is none: models of stored regions need no picture.
        return next((path for path in places if path.is_file()), self.root / "images" / name)

    def image_path(self, key: str) -> Path:
        return self._file(f"{key}.jpg")


def read_karpathy(path: Path, split: str) -> Iterator[tuple[Record, str, list[Record]]]:
    """Yield the images of one split of Karpathy's file: the image, its file name, and its sentences.

        {"images": [{"filename": "1000092795.jpg", "split": "train",
                     "sentences": [{"raw": "Two young guys ...", "sentid": 0}, ...]}, ...], "dataset": ...}

    Raises:
        FormatError: names the file and the number of the image.
    """
    # Streamed: COCO's file is large, and only one of its splits is wanted.
    for key, (number, value) in _numbered(path):
        if key != "images":
            continue
        record = Record(value, f"{path}: image {number}")
        if record.text("split") == split:
            sentences = record.items("sentences")
            yield (
                record,
                record.text("filename"),
                [Record(one, f"{record.where}, sentence {place}") for place, one in enumerate(sentences)],
            )


def _numbered(path: Path) -> Iterator[tuple[Any, tuple[int, Any]]]:
    number = 0
    for key, value in read_members(path, lists=("images",)):
        yield key, (number, value)
        number += key == "images"


def write_matches(predictions: Predictions, path: Path) -> None:
    """Write the probability that each pair matches, and the ranking of the candidates where there is one.

    Raises:
        FormatError: the predictions have neither.
    """
    scores = None if predictions.scores is None else predictions.column(SCORE)
    if scores is None and predictions.rankings is None:
        raise FormatError(f"{path}: the predictions have neither scores nor rankings.")
    records: list[dict[str, Any]] = [{"id": key} for key in predictions.ids]
    for row, record in enumerate(records):
        if scores is not None:
            record[SCORES] = {SCORE: float(scores[row])}
        if predictions.rankings is not None:
            record[RANKING] = list(predictions.rankings[row])
    write_list(path, iter(records))


def read_matches(path: Path, ids: Sequence[str]) -> Predictions:
    """Read a file of `write_matches`.

    Raises:
        FormatError: a record is invalid, or ids are missing; names the file.
    """
    keys: list[str] = []
    scores: list[float] = []
    rankings: list[tuple[str, ...]] = []
    for number, value in enumerate(read_list(path)):
        record = Record(value, f"{path}: record {number}")
        keys.append(record.text("id"))
        if SCORES in record.value:
            given = record.scores(SCORES)
            if SCORE not in given:
                raise FormatError(f"{record.where}: `{SCORES}` has no {SCORE!r}.")
            scores.append(given[SCORE])
        if RANKING in record.value:
            rankings.append(tuple(map(str, record.items(RANKING))))
    # Shorter lists would belong to other ids, without a word.
    if (scores and len(scores) < len(keys)) or (rankings and len(rankings) < len(keys)):
        raise FormatError(f"{path}: some records lack `{SCORES}` or `{RANKING}`; expected it in all or none.")
    try:
        return Predictions(
            ids=tuple(keys),
            scores=np.array(scores)[:, None] if scores else None,
            # 1 is the target of every true pair.
            answers=tuple(str(int(score >= 0.5)) for score in scores) if scores else None,
            rankings=tuple(rankings) if rankings else None,
            classes=(SCORE,) if scores else None,
        ).align(ids)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
