"""Translates a split. A journal keeps finished batches, so an interrupted call goes on where it stopped."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from typing_extensions import TypedDict

from diptych.data.inputs import digest
from diptych.data.limit import Limit
from diptych.data.stream import count_cut, ids_of
from diptych.documents import check_shape, closed, parse_json
from diptych.errors import OVERWRITE, ConfigError, FormatError
from diptych.files import make_parents
from diptych.predict.predictor import Predictor, load
from diptych.predict.splits import Bars, SplitFiles, bundle_checksum, checksums_of, predict_splits
from diptych.predictions import Predictions
from diptych.tasks import Search, Translation
from diptych.types import Progress, RegionSource

if TYPE_CHECKING:
    from diptych.datasets import Data

AGAIN = f"Remove it, or set {OVERWRITE}, to start again."


@closed
class Line(TypedDict):
    """A line of the journal after the first: sentences of a batch by the ids of their examples."""

    ids: list[str]
    texts: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """Result of `translate_split`.

    Args:
        files: the files, and whether they were there already.
        resumed: number of sentences that an interrupted call had translated.
        cut: number of sources that `processor.max_tokens` cut.
    """

    files: SplitFiles
    resumed: int
    cut: int


def translate_split(
    run: Path | str,
    split: str,
    *,
    search: Search | None = None,
    root: Path | str | None = None,
    data: "Data | None" = None,
    features: Path | str | None = None,
    file: Path | str | None = None,
    limit: Limit = None,
    overwrite: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    predictor: Predictor | None = None,
    progress: Bars | None = None,
) -> Translated:
    """Translate a split; write one sentence per line, and beside it the `.npz` of `predict_splits`.

    Args:
        run: a run of a task that translates.
        search: how sentences are generated; by default as the task says.
        file: the hypotheses; by default `RUN/translations/SPLIT` and the suffix of the data set.

    For other arguments see `predict_splits`.

    Raises:
        ConfigError: the run does not translate, the beam is larger than the vocabulary, an input is missing,
            or a file with other inputs exists.
        FormatError: a file is damaged.
    """
    run, predictor = Path(run), predictor or load(run)
    task = predictor.task
    if not isinstance(task, Translation):
        raise ConfigError(
            f"{run} has the task {type(task).__name__}; expected one of Translate or TranslateMasked."
        )
    # The search is part of what the files are made of, see `settings`.
    task.search = search or task.search
    job = _Resumed(
        predictor, run, file=None if file is None else Path(file), limit=limit, overwrite=overwrite
    )
    (done,) = predict_splits(
        run,
        [split],
        root=root,
        data=data,
        features=features,
        out=run / "translations",
        file=file,
        limit=limit,
        overwrite=overwrite,
        batch_size=batch_size,
        workers=workers,
        predictor=predictor,
        score=job.score,
        settings=job.settings,
        progress=progress,
    )
    journal_of(done.file).unlink(missing_ok=True)  # only now: the files are complete
    return Translated(files=done, resumed=job.resumed, cut=job.cut)


def journal_of(file: Path) -> Path:
    """The journal of an unfinished file of hypotheses."""
    return file.with_name(f"{file.name}.unfinished")


class _Resumed:
    """`Predictor.predict_dataset` with a journal."""

    def __init__(
        self, predictor: Predictor, run: Path, *, file: Path | None, limit: Limit, overwrite: bool
    ) -> None:
        self.predictor, self.run, self.file, self.limit = predictor, run, file, limit
        self.overwrite, self.resumed, self.cut = overwrite, 0, 0
        assert isinstance(predictor.task, Translation), "checked by translate_split()"
        self.settings = {"search": asdict(predictor.task.search)}

    def score(
        self,
        dataset: Any,
        *,
        features: RegionSource | None,
        batch_size: int,
        workers: int,
        progress: Progress | None,
    ) -> Predictions:
        predictor, ids = self.predictor, ids_of(dataset)
        self.cut = count_cut(dataset, predictor.processor)
        sources = predictor.sources(dataset, features=features)
        batches = predictor.batches(dataset, sources, batch_size)
        made_of = digest(
            [bundle_checksum(self.run), self.limit, self.settings, checksums_of(predictor, dataset, features)]
        )
        file = self.file or self.run / "translations" / f"{dataset.split}{dataset.suffix}"
        with _journal(journal_of(file), made_of, overwrite=self.overwrite) as (texts, write):
            self.resumed = len(texts)
            # Whole batches, so that a resumed call computes what an uninterrupted one does.
            left = [batch for batch in batches if any(ids[row] not in texts for row in batch)]
            for part in predictor.predict_batches(dataset, sources, left, workers=workers):
                fresh = dict(zip(part.ids, part.texts or (), strict=True))
                _append(write, Line(ids=[*fresh], texts=[*fresh.values()]))
                texts |= fresh
                if progress is not None:
                    progress(len(texts), len(ids))
        # Batches are sorted by length; the file has the order of the split.
        return Predictions(ids=ids, texts=tuple(texts[key] for key in ids), form="translations")


@contextmanager
def _journal(path: Path, made_of: str, *, overwrite: bool) -> Iterator[tuple[dict[str, str], IO[str]]]:
    """Read the sentences of an interrupted call, and open the journal to write further ones.

    Raises:
        ConfigError: the interrupted call had other inputs.
        FormatError: the journal is damaged.
    """
    texts: dict[str, str] = {}
    if path.is_file() and not overwrite:
        whole = path.read_bytes().rpartition(b"\n")[0]  # a killed process may have left half a line
        # Damaged bytes then fail as a line that is no JSON, with its number.
        head, *lines = whole.decode("utf-8", "replace").split("\n")
        if head != made_of:
            # The first line says what the sentences were made of: others would mix two models in one file.
            raise ConfigError(f"{path} is from a call with another model, data or search. {AGAIN}")
        for number, line in enumerate(lines, 2):
            texts |= _read(line, f"{path}:{number}")
        with path.open("r+b") as file:
            # The half line goes, or the next record would continue it.
            file.truncate(len(whole) + 1)
    else:
        make_parents(path)
        path.write_text(f"{made_of}\n", encoding="utf-8")
    with path.open("a", encoding="utf-8", newline="\n") as journal:
        yield texts, journal


def _read(line: str, where: str) -> Mapping[str, str]:
    values: Line = check_shape(parse_json(line, where=where, advice=AGAIN), Line, where=where, advice=AGAIN)
    if len(values["ids"]) != len(values["texts"]):
        raise FormatError(f"{where}: {len(values['ids'])} ids of {len(values['texts'])} sentences. {AGAIN}")
    return dict(zip(values["ids"], values["texts"], strict=True))


def _append(file: IO[str], line: Line) -> None:
    # JSON writes line breaks within a sentence as \n, so a record is always one line.
    file.write(f"{json.dumps(line)}\n")
    file.flush()  # a killed process loses what is in its own memory
