"""Predicts whole splits and writes files. Finished splits are not predicted again, even after a kill."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.bundle import find_bundle, trained_on
from diptych.data import Subset, first_images, has_images, image_limit, open_regions, refuse_unread
from diptych.data.inputs import checksums, digest, file_checksum, picture_checksum
from diptych.data.limit import Limit
from diptych.errors import OVERWRITE, ConfigError, DiptychError
from diptych.files import claimed, require_name, reserved
from diptych.predict.predictor import Predictor, load
from diptych.predictions import Predictions
from diptych.types import Dataset, Progress, RegionSource

if TYPE_CHECKING:
    from diptych.datasets import Data, Split

Bars = Callable[[str], AbstractContextManager[Progress | None]]
KIND = "a prediction file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFiles:
    """Result of `predict_splits` for one split.

    Args:
        file: file in the data set's official format; the `.npz` with the scores of all classes is beside it.
        kept: whether the file existed already and was kept.
    """

    split: str
    file: Path
    predictions: Predictions
    kept: bool


def predict_splits(
    run: Path | str,
    splits: Sequence[str] | None = None,
    *,
    root: Path | str | None = None,
    data: "Data | None" = None,
    features: Path | str | None = None,
    more_features: Path | str | None = None,
    out: Path | str | None = None,
    file: Path | str | None = None,
    limit: Limit = None,
    overwrite: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    predictor: Predictor | None = None,
    score: Callable[..., Predictions] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Bars | None = None,
) -> list[SplitFiles]:
    """Predict splits of a data set; write for each the official file and `SPLIT.npz`.

    A split whose `.npz` records the same inputs is not predicted again; only missing files are written.

    Args:
        run: a run folder or a bundle.
        splits: by default those the data set defines for prediction, or all except the training split.
        root: folder of the data set; by default that of training.
        data: the data set; by default that of the bundle, or inferred from the layout of `root`.
        features: a feature store, or boxes.jsonl for end-to-end models; by default that of training.
        more_features: the second store, for models that merge two.
        out: output folder; by default `RUN/predictions`.
        file: official file of a single split, instead of `OUT/SPLIT` and the suffix of the data set.
        limit: predict the examples of the first images alone, see `diptych.data.first_images`.
        overwrite: replace prediction files that have other inputs.
        predictor: the model of `run`, if it is loaded already.
        score: replacement for `Predictor.predict_dataset`, for example one that runs on other machines.
        settings: further settings that decide the predictions, such as those of a search.
        progress: called with the name of a split; its context yields a function of (examples done, total).

    Raises:
        ConfigError: a split or an input is missing, or a file with other inputs exists.
        FormatError: a file is damaged.
    """
    _require_counts(batch_size, workers)
    run, predictor, root = Path(run), predictor or load(run), root_of_run(Path(run), root)
    about, most = predictor.bundle.provenance, image_limit(limit)
    data = data or _data_of(run, root, about)
    splits = _splits(data, root, splits, about)
    out = Path(out or run / "predictions")
    score = partial(score or predictor.predict_dataset, batch_size=batch_size, workers=workers)
    made_by = {"bundle": bundle_checksum(run), "limit": most, **(settings or {})}
    jobs = []  # all files are claimed before the first prediction, so that a conflict costs nothing
    with ExitStack() as stack:
        for split in splits:
            dataset = data.open(root.absolute(), split)
            store = regions_of_run(predictor, run, dataset, features, more_features)
            made_of = {**made_by, **checksums_of(predictor, _limited(dataset, most, store), store)}
            jobs.append(_Job(run, Path(file or out / f"{split}{dataset.suffix}"), dataset, store, made_of))
            jobs[-1].claim(stack, overwrite=overwrite)
        return [job.finish(predictor, score, progress) for job in jobs]  # in the block: all stay locked


def _require_counts(batch_size: int, workers: int) -> None:
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size is {batch_size} (at least 1), workers is {workers} (at least 0).")


def _data_of(run: Path, root: Path, about: Mapping[str, Any]) -> "Data":
    from diptych.datasets import find_data  # imports pyarrow, which predictions without splits do not need

    return find_data(root, node=about.get("data"), where=f"the bundle in {run}")


def _limited(dataset: "Split", most: int | None, store: RegionSource | None) -> "Split":
    """The data set with the examples of the first images; its official file then holds these alone."""
    part = first_images(dataset, most, store)
    if isinstance(part, Subset):
        # On the data set itself, whose `write` must write these examples only.
        dataset.keep(np.asarray(part.indices))
    return dataset


@dataclass
class _Job:
    """Prediction of one split and its two files.

    Args:
        made_of: checksums of all inputs.
        done: the predictions; None until they are read or computed.
    """

    run: Path
    file: Path
    dataset: "Split"
    store: RegionSource | None
    made_of: Mapping[str, Any]
    done: Predictions | None = None

    @property
    def whole(self) -> Path:
        # Not of the file's name: `SPLIT_predict.json` belongs to `SPLIT.npz`.
        named = self.file.name == f"{self.dataset.split}{self.dataset.suffix}"
        return self.file.with_name(f"{self.dataset.split if named else self.file.stem}.npz")

    def claim(self, stack: ExitStack, *, overwrite: bool) -> None:
        """Reserve both files for this process, and read the predictions of an earlier call."""
        self.done = None if overwrite else predicted_before(self.whole, self.made_of)
        # Both are one file in data sets whose official format is .npz.
        for file in dict.fromkeys((self.whole, self.file)):
            # A finished file is only locked: `reserved` would refuse a file that exists.
            keep = (self.done is not None and file.exists()) or (overwrite and self._is_written(file))
            stack.enter_context(claimed(file) if keep else reserved(file, overwrite=overwrite, kind=KIND))

    def _is_written(self, file: Path) -> bool:
        """Whether a file of sentences, which has no head to know it by, is that of the `.npz` beside it."""
        if not self.dataset.written or file != self.file or not file.is_file():
            return False
        try:
            texts = Predictions.load(self.whole).texts or ()
            return self.dataset.read_predictions(file).texts == tuple(" ".join(one.split()) for one in texts)
        except DiptychError:  # not ours
            return False

    def finish(
        self, predictor: Predictor, score: Callable[..., Predictions], progress: Bars | None
    ) -> SplitFiles:
        kept = self.done is not None and self.file.exists()
        if self.done is None:
            with nullcontext() if progress is None else progress(self.dataset.split) as advance:
                predictions = score(self.dataset, features=self.store, progress=advance)
            self.done = replace(predictions, meta=self._meta(predictor.bundle.provenance))
            self.done.save(self.whole)  # before the official file, so that a kill in between costs nothing
        # The official file may be missing after a kill: it is written again from the scores.
        if not kept and self.file != self.whole:
            self.dataset.write(self.done, self.file)
        return SplitFiles(split=self.dataset.split, file=self.file, predictions=self.done, kept=kept)

    def _meta(self, about: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "bundle": str(self.run),
            "split": self.dataset.split,
            "name": about.get("name"),
            "seed": about.get("seed"),
            "data": self.dataset.node,
            "made_of": dict(self.made_of),
            **({} if self.store is None else {"features": self.store.meta.checksum}),
        }


def root_of_run(run: Path, root: Path | str | None = None) -> Path:
    """Return `root` if given, else the folder of the data set that the run was trained on.

    Raises:
        ConfigError: the bundle does not record the folder.
    """
    # What the caller says goes first: the data may have moved since the training.
    known = root or trained_on(run)["root"]
    if known is None:
        raise ConfigError("the bundle does not record the folder of its data set; set --root FOLDER.")
    return Path(known)


def regions_of_run(
    predictor: Predictor,
    run: Path,
    images: "Mapping[str, Any] | Split",
    features: Path | str | None = None,
    more_features: Path | str | None = None,
) -> RegionSource | None:
    """Open the source of regions: the given stores, else those of training.

    Args:
        images: pictures by key, or the data set that has them.

    Raises:
        ConfigError: the model needs another number of stores, or none at all.
    """
    refuse_unread(predictor.processor, features=features, more_features=more_features)
    places, merge = trained_on(run), predictor.bundle.provenance.get("region_merge")
    if more_features is not None and merge in (None, "detector_only"):
        raise ConfigError("the model was trained on one feature store; remove --more-features.")
    more = more_features or places["more_features"]
    # A model of two merged stores would read half of its regions without any error.
    if more is None and merge not in (None, "detector_only"):
        raise ConfigError("the model was trained on two feature stores; set --more-features FOLDER.")
    main = features or places["features"]
    stores: tuple[str, ...] = getattr(images, "stores", ())
    source: Any = images
    pictures: Mapping[str, Any] = getattr(source, "images", source)
    without = None
    if isinstance(source, Dataset) and predictor.bundle.features is not None and not has_images(source):
        without = predictor.bundle.features.feature_dim
    return open_regions(
        predictor.processor,
        main,
        pictures,
        more=more,
        merge=merge or "vilio",
        stores=stores,
        without=without,
        own=[getattr(source, "regions", None)],
    )


def _splits(
    data: "Data", root: Path, splits: Sequence[str] | None, about: Mapping[str, Any]
) -> tuple[str, ...]:
    """Choose the splits: the given ones, else those the data set defines, else all except of training."""
    if not splits:
        # A joined split such as `train+nominival` names several.
        present, trained = data.splits(root), str((about.get("training") or {}).get("split")).split("+")
        splits = data.kind.predicted or [split for split in present if split not in trained] or present
    for split in splits:  # fail on a wrong name before the first split is predicted
        require_name(split, "a split")
        data.find_files(root, split)
    return tuple(dict.fromkeys(splits))


def bundle_checksum(run: Path) -> str:
    """Checksum of the files that determine predictions; README and metrics do not."""
    folder = find_bundle(run)
    names = ("bundle.yaml", "weights.safetensors", "files")
    # Names are part of the digest, so that the contents of two files cannot be exchanged.
    return digest([[name, file_checksum(folder / name)] for name in names if (folder / name).exists()])


def checksums_of(predictor: Predictor, dataset: "Split", store: RegionSource | None) -> dict[str, Any]:
    """Checksums of the other inputs. Paths are not included, because the same files may be moved."""
    pixels = "pixels" in predictor.needs or predictor.processor.prepare is not None
    return {
        "data": digest([dataset.node, dataset.split, [*checksums(dataset.files).values()]]),
        # The checksum of the content is in the meta, so no features are read for it.
        "features": None if store is None else digest(store.meta.as_dict()),
        "pictures": picture_checksum(dataset.images) if pixels else None,
        # bfloat16 changes scores, so these are other predictions.
        "precision": predictor.precision,
    }


def predicted_before(path: Path, made_of: Mapping[str, Any]) -> Predictions | None:
    """Load the predictions of an earlier call with equal inputs; None if there are none.

    Raises:
        ConfigError: the earlier call had other inputs.
    """
    if not path.is_file():
        return None
    try:
        predictions = Predictions.load(path)
    except DiptychError:  # not our file; `reserved` refuses to replace it
        return None
    before = predictions.meta.get("made_of")
    if not isinstance(before, Mapping):  # written by diptych 0.1 or by `diptych ensemble`
        return None
    # Of both, because a setting may have been given then and not now.
    if different := [name for name in {**made_of, **before} if before.get(name) != made_of.get(name)]:
        raise ConfigError(
            f"{path} exists and was made with other inputs ({', '.join(different)} differ), so it is kept; "
            f"choose another place or set {OVERWRITE}."
        )
    return predictions
