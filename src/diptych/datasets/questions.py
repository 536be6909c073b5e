"""What data sets of questions about pictures share: VQA v2 and GQA, in official files or in LXMERT's."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from diptych.datasets.joined import JoinedSplit
from diptych.datasets.json_records import Record, first_member, read_members, write_list
from diptych.datasets.locate import locate
from diptych.errors import FormatError
from diptych.predictions import Predictions
from diptych.types import Example, Pair

TABLES = ("trainval_label2ans.json", "trainval_ans2label.json", "answers.txt", "answers.json")


class QuestionSplit(JoinedSplit):
    """A split of questions; `A+B` is the split A followed by the split B.

    An example has one picture, one question, and as target the score of each right answer in [0, 1], or None
    where answers are withheld. `answer_table` is the file of possible answers, if the root has one.
    """

    noun = "question"
    suffix = "_predict.json"
    fields: ClassVar[tuple[str, str]]
    """Names of id and answer in the file for the server."""

    @property
    def answer_table(self) -> Path | None:
        return locate(self.root, TABLES, folders=self.folders, fits=Path.is_file)

    def image_path(self, key: str) -> Path:
        # If no folder has the picture, the first place is returned: the message then names a plausible path.
        places = [folder / f"{key}.jpg" for folder in self._picture_folders]
        return next((path for path in places if path.is_file()), (places or [self.root / f"{key}.jpg"])[0])

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the file for the server: id and answer of every question, in the order of the split.

        Raises:
            FormatError: a question has no answer, or the predictions have others; names them.
        """
        # The servers refuse a file that lacks a question or has one too many.
        predictions = predictions.unique().align(self.ids)
        if predictions.answers is None:
            raise FormatError(f"{path}: the predictions have scores but no answers.")
        key, answer = self.fields
        rows = zip(predictions.ids, predictions.answers, strict=True)
        write_list(path, ({answer: text, key: self.to_official(name)} for name, text in rows))

    def read_predictions(self, path: Path) -> Predictions:
        """Read a file for the server.

        Raises:
            FormatError: names the file, and the first record or question that is wrong.
        """
        key, answer = self.fields
        answers: dict[str, str] = {}
        for number, value in read_members(path):
            record = Record(value, f"{path}: record {number}")
            name = self.from_official(record)
            if name in answers:
                raise FormatError(
                    f"{path}: {key} {name} occurs a second time; expected one answer per question."
                )
            answers[name] = record.text(answer)
        given = Predictions(ids=tuple(answers), answers=tuple(answers.values()), form="answers")
        try:
            return given.align(self.ids)
        except FormatError as error:
            raise FormatError(f"{path}: not of split {self.split!r}: {error}") from error

    def to_official(self, name: str) -> int | str:
        """The id as the server takes it."""
        return name

    def from_official(self, record: Record) -> str:
        return record.text(self.fields[0])


def lxmert_file(root: Path, names: Collection[str], folders: Collection[str], kind: type) -> Path | None:
    """Find a file of LXMERT: a JSON list of records with `img_id`, `sent` and a `question_id` of a type."""

    def fits(path: Path) -> bool:
        _, record = first_member(path)
        return isinstance(record, Mapping) and "sent" in record and type(record.get("question_id")) is kind

    found = locate(root, [f"{name}.json" for name in names], folders=[*folders], fits=fits)
    # A damaged file counts as found, so that reading it says what is wrong;
    # a healthy one of another kind does not.
    return found if found is not None and (fits(found) or first_member(found) == (None, None)) else None


def read_lxmert(path: Path, known: Collection[str] | None = None) -> Iterator[tuple[Record, Example]]:
    """Yield the records of a file of LXMERT, as they are and as examples.

    Args:
        known: answers that labels may have; None allows all.

    Raises:
        FormatError: names the file and the question.
    """
    for number, value in read_members(path):
        record = Record(value, f"{path}: record {number}")
        key = record.value.get("question_id")
        # VQA's ids are numbers, GQA's are strings whose leading zeros count.
        name = str(record.number("question_id")) if type(key) is int else record.text("question_id")
        record.where = f"{path}: question {name}"
        # An empty label is a question that no answer of the table fits; without the field,
        # answers are withheld.
        target = record.scores("label") if "label" in record.value else None
        if known is not None and (unknown := [answer for answer in target or () if answer not in known]):
            raise FormatError(
                f"{record.where}: the answer {unknown[0]!r} is not in the table of {len(known):,} answers "
                "beside the file. Are both of the same release?"
            )
        pair = Pair(image=record.text("img_id"), text=record.text("sent"))
        yield record, Example(id=name, pairs=(pair,), target=target)
