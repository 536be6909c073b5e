"""Prediction in shards of the batches that a local run makes, so that padding and results are the same."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from diptych.data.stream import ids_of
from diptych.predict import Predictor, load
from diptych.predictions import Predictions
from diptych.types import Dataset, Progress, RegionSource

Batches = list[list[int]]
BatchFunction = Callable[[Batches], Predictions]
Engine = Callable[[Callable[[], BatchFunction], Sequence[Batches]], Iterable[Predictions]]


def predict_split(
    predictor: Predictor,
    run: Path,
    dataset: Dataset,
    *,
    engine: Engine,
    features: RegionSource | None = None,
    batch_size: int = 32,
    shard: int = 32,
    workers: int = 0,
    progress: Progress | None = None,
) -> Predictions:
    """Like `Predictor.predict_dataset`, computed by the workers of an engine; results are equal to the bit.

    Args:
        run: run folder or bundle of `predictor`, from which the workers load it. They must see it, the
            features and the pictures of `dataset` under the same paths.
        shard: number of batches that a worker computes per call.
        workers: loader processes of each worker.
    """
    batches = predictor.batches(dataset, predictor.sources(dataset, features=features), batch_size)
    shards = [[*batches[start : start + shard]] for start in range(0, len(batches), shard)]
    build = partial(
        batch_function,
        run.absolute(),
        dataset,
        features,
        device=predictor.device.type,
        precision=predictor.precision,
        workers=workers,
    )
    parts, done = [], 0
    for part in engine(build, shards):
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done, len(dataset))
    return Predictions.concat(parts).align(ids_of(dataset))  # shards arrive in any order


def batch_function(
    run: Path,
    dataset: Dataset,
    features: RegionSource | None,
    *,
    device: str,
    precision: str,
    workers: int,
) -> BatchFunction:
    """Load the model; returns a function that predicts batches, given as row numbers of the data set."""
    predictor = load(run, device=device, precision=precision)
    sources = predictor.sources(dataset, features=features)

    def score(batches: Batches) -> Predictions:
        return Predictions.concat([*predictor.predict_batches(dataset, sources, batches, workers=workers)])

    return score
