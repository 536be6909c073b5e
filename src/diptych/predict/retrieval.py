"""Retrieval over a split of true pairs: scores of all combinations, ranks, and files. Resumes after a kill.

    OUT/scores.npy         float32, one row per image and one column per text (of two sentences: per source
                           and per target)
    OUT/retrieval.json     ids of rows and columns, the row to which each column belongs, ranks, measures
    OUT/image_to_text.npz  predictions whose rankings are the best texts of each image, with their scores
    OUT/text_to_image.npz  the same for each text

Until all are complete, `OUT.partial/` holds the scores so far and a record of how far they are.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.data import Sources, require_sources
from diptych.documents import closed, read_json
from diptych.errors import OVERWRITE, ConfigError
from diptych.files import atomic_folder, require_new
from diptych.metrics.ranking import Interval, Ties, grid_ranks, line_blocks, measure_ranks
from diptych.predict.pairs import CosineScorer, JointScorer, PairScorer, Scorer, Sides, sides_of
from diptych.predict.partial import PartialScores, blocks_of
from diptych.predict.predictor import Predictor, load
from diptych.predict.splits import bundle_checksum, checksums_of, regions_of_run, root_of_run
from diptych.predict.towers import TowersScorer, towers_of
from diptych.predictions import Predictions
from diptych.types import Progress

if TYPE_CHECKING:
    from diptych.datasets import Data

KIND = "a retrieval"
REPORT = "retrieval.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How scores become ranks and measures.

    Args:
        top: candidates in the ranking of a query.
        ties: rank of a right candidate among equal scores, see `diptych.metrics.best_ranks`.
        samples: bootstrap resamples per interval.
    """

    top: int = 10
    ties: Ties = "last"
    samples: int = 2000

    def __post_init__(self) -> None:
        if self.top < 1 or self.samples < 1 or self.ties not in ("last", "order"):
            raise ConfigError(
                f"top is {self.top} and samples {self.samples} (both at least 1), ties is {self.ties!r} "
                "('last' or 'order')."
            )


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """A finished retrieval. Everything by direction has the keys of `Sides.directions`.

    Args:
        folder: folder with its files.
        images: picture files by key.
        rankings: best candidates of each query, as `Predictions.rankings`, with their scores.
        ranks: rank of the best right candidate of each query, from 1.
        measures: recall at 1, 5 and 10, median and mean rank, with intervals.
        kept: whether an earlier call had made it.
    """

    folder: Path
    sides: Sides
    images: Mapping[str, Path]
    rankings: Mapping[str, Predictions]
    ranks: Mapping[str, tuple[int, ...]]
    measures: Mapping[str, Mapping[str, Interval]]
    kept: bool = False

    @property
    def scores(self) -> Float[ndarray, "N M"]:
        """All scores, mapped from their file; nan where two folds meet."""
        # Pickles in an .npy would run code, and the folder may come from somebody else.
        table: ndarray = np.load(self.folder / "scores.npy", mmap_mode="r", allow_pickle=False)
        return table


@closed
class ReportNode(TypedDict):
    """`retrieval.json`. Ends of an interval that is undefined are null."""

    split: str
    made_of: dict[str, Any]
    sides: list[str]
    rows: list[str]
    columns: list[str]
    owners: list[int]
    ranks: dict[str, list[int]]
    measures: dict[str, dict[str, list[float]]]


def retrieve(
    run: Path | str,
    split: str,
    *,
    by: str = "match",
    root: Path | str | None = None,
    data: "Data | None" = None,
    features: Path | str | None = None,
    towers: Path | str | None = None,
    out: Path | str | None = None,
    folds: int = 1,
    measuring: Measuring | None = None,
    overwrite: bool = False,
    batch_size: int = 256,
    predictor: Predictor | None = None,
    draw: Callable[[Retrieval, Path], None] | None = None,
    progress: Progress | None = None,
) -> Retrieval:
    """Rank all texts of a split for each of its images, and all images for each text.

        found = retrieve("runs/mine", "test")
        print(found.measures["text_to_image"]["recall@1"].value)

    Args:
        run: a run folder or a bundle.
        split: a split of true pairs: captions, or sentences with their translations.
        by: `match` scores each pair with the model's task, which must be `Match`. `cosine` compares the joint
            vectors of a dual encoder, else the first states of both sides, each encoded alone; it needs no
            trained task.
        root: folder of the data set; `data` the data set; `features` the feature store. By default those of
            training.
        towers: for layers that were trained on stored vectors (`model=joint_embeddings`), the model that made
            these; it embeds the pictures and texts of the split, which then need no store.
        out: folder for the results; by default `RUN/retrieval/SPLIT`, with `_cosine` added.
        folds: rank within so many parts of the images, as the 1k results of COCO's 5,000 test images.
        overwrite: score again, and replace a retrieval with other inputs.
        batch_size: pairs that are scored together.
        draw: adds pictures to the folder before it appears, such as `diptych.report.retrieval_page`.
        progress: called with the number of scored pairs and of all pairs.

    Raises:
        ConfigError: a setting is invalid, the split is no set of true pairs, or files with other inputs are
            there.
        MissingFeatures: images have no regions; raised before the first score.
        FormatError: a file is damaged.
    """
    if batch_size < 1 or by not in ("match", "cosine"):
        raise ConfigError(f"batch_size is {batch_size} (at least 1), by is {by!r} ('match' or 'cosine').")
    job = _opened(Path(run), split, root, data, features, towers, by=by, predictor=predictor)
    how = {"by": by, "folds": folds, "batch_size": batch_size}
    # Two ways of scoring one split do not replace each other.
    place = Path(run) / "retrieval" / f"{split}{'' if by == 'match' else '_cosine'}"
    return job.run(
        place if out is None else Path(out), how, measuring or Measuring(), overwrite, draw, progress
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A split that is ready to be scored.

    Args:
        towers: embed the pictures and texts now; None if their vectors or regions are stored.
        made_of: checksums of model, data and features.
    """

    predictor: Predictor
    sides: Sides
    sources: Sources
    images: Mapping[str, Path]
    split: str
    towers: Predictor | None
    made_of: Mapping[str, Any]

    def run(
        self,
        out: Path,
        how: Mapping[str, Any],
        measuring: Measuring,
        overwrite: bool,
        draw: Callable[[Retrieval, Path], None] | None,
        progress: Progress | None,
    ) -> Retrieval:
        # Checked here, because only the split tells how many images there are.
        folds = how["folds"]
        if not 1 <= folds <= self.sides.shape[0]:
            raise ConfigError(f"folds is {folds}; expected 1 to {self.sides.shape[0]}, the number of images.")
        # A block gives the same bytes on every call, but not if it is cut differently or computed elsewhere.
        made_of = {**self.made_of, **how, "device": self.predictor.device.type, **asdict(measuring)}
        if not overwrite and (done := _finished(out, made_of, self.sides, self.images)) is not None:
            return done
        # Before the first score: a folder that must be kept should not cost a night.
        require_new(out, overwrite=overwrite, kind=KIND)
        scorer = _scorer(self.predictor, self.sides, self.sources, by=how["by"], towers=self.towers)
        partial = PartialScores(
            out.with_name(f"{out.name}.partial"),
            self.sides.shape,
            made_of=made_of,
            blocks=lambda: blocks_of(scorer.lengths, self.sides.owners, size=how["batch_size"], folds=folds),
        )
        with partial.opened(overwrite=overwrite):
            partial.fill(scorer.block, progress)
            with atomic_folder(out, kind=KIND, overwrite=overwrite) as folder:
                np.save(folder / "scores.npy", partial.scores)
                found = _measured(
                    partial.scores, self.sides, measuring, folds=folds, folder=out, images=self.images
                )
                _write(found, folder, split=self.split, made_of=made_of)
                if draw is not None:
                    draw(found, folder)
            # Only now: if drawing fails, the scores are still there for the next call.
            partial.discard()
        return found


def _opened(
    run: Path,
    split: str,
    root: Path | str | None,
    data: "Data | None",
    features: Path | str | None,
    towers: Path | str | None,
    *,
    by: str,
    predictor: Predictor | None,
) -> _Job:
    from diptych.datasets import find_data  # imports pyarrow, which other predictions do not need

    if towers is not None and (by != "cosine" or features is not None):
        raise ConfigError(f"towers={towers} is for by='cosine' and without features; got {by!r}, {features}.")
    # Cosines compare states and need no task, so a model before its training will do.
    predictor = predictor or load(run, pretrained=by == "cosine")
    root = root_of_run(run, root)
    data = data or find_data(root, node=predictor.bundle.provenance.get("data"), where=f"the bundle in {run}")
    dataset = data.open(root.absolute(), split)
    seer = None if towers is None else towers_of(predictor, Path(towers))
    reader = predictor if seer is None else seer
    store = None if seer is not None else regions_of_run(predictor, run, dataset, features)
    sources = reader.sources(dataset, features=store)
    # Before hours of scoring: all missing regions are named at once.
    require_sources(reader.needs, reader.processor, sources, dataset)
    return _Job(
        predictor=predictor,
        sides=sides_of(dataset),
        sources=sources,
        images=dataset.images,
        split=split,
        towers=seer,
        made_of={"bundle": bundle_checksum(run), **checksums_of(reader, dataset, store)},
    )


def _scorer(
    predictor: Predictor, sides: Sides, sources: Sources, *, by: str, towers: Predictor | None
) -> Scorer:
    if towers is not None:
        return TowersScorer(predictor, sides, sources, towers=towers)
    if by == "match":
        return PairScorer(predictor, sides, sources)
    # What two towers have learned to compare, and not the states of one of them.
    dual = getattr(predictor.model, "joint_dim", 0)
    return (JointScorer if dual else CosineScorer)(predictor, sides, sources)


def _measured(
    scores: Float[ndarray, "N M"],
    sides: Sides,
    measuring: Measuring,
    *,
    folds: int,
    folder: Path,
    images: Mapping[str, Path],
) -> Retrieval:
    ranks = grid_ranks(scores, sides.owners, ties=measuring.ties)
    # All queries about one image form a unit; an image itself is a unit of one query.
    units = np.arange(sides.shape[0]), sides.owners
    # A ranking may not be longer than the smallest fold: beyond it lie the nan of other folds.
    smallest = sides.shape[0] // folds, min(_fold_sizes(sides, folds))
    # A view: searching in the other direction copies nothing.
    tables = scores, scores.T
    both = range(2)
    return Retrieval(
        folder=folder,
        sides=sides,
        images=images,
        rankings={
            sides.directions[side]: _rankings(
                tables[side], sides.ids[side], sides.ids[1 - side], min(measuring.top, smallest[1 - side])
            )
            for side in both
        },
        ranks={sides.directions[side]: tuple(ranks[side].tolist()) for side in both},
        measures={
            sides.directions[side]: measure_ranks(ranks[side], units[side], samples=measuring.samples)
            for side in both
        },
    )


def _fold_sizes(sides: Sides, folds: int) -> list[int]:
    """Number of right items of each fold."""
    count = sides.shape[0]
    # The same cuts as in `blocks_of`.
    ends = [count * number // folds for number in range(folds + 1)]
    return [int(number) for number in np.histogram(sides.owners, ends)[0]]


def _rankings(
    table: Float[ndarray, "Q C"], queries: tuple[str, ...], candidates: tuple[str, ...], top: int
) -> Predictions:
    """The best candidates of each query; of equal scores the one with the smaller number comes first."""
    best, scores = [], []
    for _, block in line_blocks(table):
        # nan, where two folds meet, sorts last.
        order = np.argsort(-block, axis=1, kind="stable")[:, :top]
        best += [tuple(candidates[place] for place in row) for row in order.tolist()]
        scores.append(np.take_along_axis(block, order, 1))
    return Predictions(ids=queries, rankings=tuple(best), scores=np.concatenate(scores))


def _write(found: Retrieval, folder: Path, *, split: str, made_of: Mapping[str, Any]) -> None:
    for direction, predictions in found.rankings.items():
        predictions.save(folder / f"{direction}.npz")
    report: ReportNode = {
        "split": split,
        "made_of": dict(made_of),
        "sides": [*found.sides.names],
        "rows": [*found.sides.ids[0]],
        "columns": [*found.sides.ids[1]],
        "owners": found.sides.owners.tolist(),
        "ranks": {direction: [*ranks] for direction, ranks in found.ranks.items()},
        "measures": {
            direction: {name: [*interval] for name, interval in values.items()}
            for direction, values in found.measures.items()
        },
    }
    with (folder / REPORT).open("w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


def _finished(
    out: Path, made_of: Mapping[str, Any], sides: Sides, images: Mapping[str, Path]
) -> Retrieval | None:
    """Read the results of an earlier call with equal inputs; None if there are none.

    Raises:
        ConfigError: the earlier call had other inputs.
    """
    # The folder appears as a whole, so this file stands for all of them.
    if not (out / REPORT).is_file():
        return None
    report = read_json(out / REPORT, ReportNode, advice=f"Set {OVERWRITE} to make it again.")
    if other := [name for name, value in made_of.items() if report["made_of"].get(name) != value]:
        raise ConfigError(
            f"{out} exists and was made with other inputs ({', '.join(other)} differ), so it is kept; choose "
            f"another place or set {OVERWRITE}."
        )
    return Retrieval(
        folder=out,
        sides=sides,
        images=images,
        rankings={name: Predictions.load(out / f"{name}.npz") for name in sides.directions},
        ranks={name: tuple(report["ranks"][name]) for name in sides.directions},
        measures={
            name: {key: Interval(*ends) for key, ends in report["measures"][name].items()}
            for name in sides.directions
        },
        kept=True,
    )
