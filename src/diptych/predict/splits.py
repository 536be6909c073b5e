"""The files of whole splits. A split that is done is not scored again, also after a kill."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.bundle import find_bundle, trained_on
from diptych.data import open_regions
from diptych.data.inputs import checksums, digest, file_checksum, picture_checksum
from diptych.errors import ConfigError, DiptychError
from diptych.files import claimed, require_name, reserved
from diptych.predict.predictor import Predictor, load
from diptych.predictions import Predictions
from diptych.types import Progress, RegionSource

if TYPE_CHECKING:
    from diptych.datasets import Data, Split

Bars = Callable[[str], AbstractContextManager[Progress | None]]
KIND = "a prediction file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFiles:
    """What `predict_splits` made of one split.

    Args:
        file: the official file of the data set; the `.npz` with all classes lies beside it.
        kept: it stood there already.
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
    overwrite: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    predictor: Predictor | None = None,
    score: Callable[..., Predictions] | None = None,
    progress: Bars | None = None,
) -> list[SplitFiles]:
    """Score splits of a data set and write, for each, its official file and `SPLIT.npz`.

    The `.npz` is written first and says what it was made of. A split whose `.npz` was made by the same model
    from the same data and features is not scored again; only what is missing is written.

    Args:
        run: a run folder or a bundle.
        splits: default: those that the data set names, or all but that of training.
        root: folder of the data set; by default the one that the run was trained on.
        data: the data set; by default that of the bundle, or of the layout of `root`.
        features: a feature store, or boxes.jsonl for end-to-end models; by default as trained.
        more_features: the second store of a model that merges two.
        out: folder for the files; `RUN/predictions` by default.
        overwrite: replace prediction files that were made otherwise.
        predictor: the model of `run`, if it is loaded already.
        score: instead of `Predictor.predict_dataset`, such as one that computes on other machines.
        progress: opens, for a split, what is called with (examples done, examples in all).

    Raises:
        ConfigError: a split or an input is missing, or a file stands there that was made otherwise.
        FormatError: a file is damaged.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(
            f"batch_size is {batch_size}, expected at least 1; workers is {workers}, at least 0."
        )
    from diptych.datasets import find_data  # which loads pyarrow

    run, predictor, root = Path(run), predictor or load(run), root_of_run(Path(run), root)
    about = predictor.bundle.provenance
    data = data or find_data(root, node=about.get("data"), where=f"the bundle in {run}")
    splits = _splits(data, root, splits, about)
    out = run / "predictions" if out is None else Path(out)
    score = partial(score or predictor.predict_dataset, batch_size=batch_size, workers=workers)
    bundle = _bundle_checksum(run)
    with ExitStack() as stack:
        jobs = []
        for split in splits:
            dataset = data.open(root.absolute(), split)
            store = regions_of_run(predictor, run, dataset, features, more_features)
            made_of = {"bundle": bundle, **_inputs(predictor, dataset, store)}
            jobs.append(_Job(run=run, out=out, dataset=dataset, store=store, made_of=made_of))
            jobs[-1].claim(stack, overwrite=overwrite)
        return [job.finish(predictor, score, progress) for job in jobs]


@dataclass(kw_only=True)
class _Job:
    """One split on its way to its two files.

    Args:
        done: the predictions, once there are any.
    """

    run: Path
    out: Path
    dataset: "Split"
    store: RegionSource | None
    made_of: Mapping[str, Any]
    done: Predictions | None = None

    @property
    def file(self) -> Path:
        return self.out / f"{self.dataset.split}{self.dataset.suffix}"

    @property
    def whole(self) -> Path:
        return self.out / f"{self.dataset.split}.npz"

    def claim(self, stack: ExitStack, *, overwrite: bool) -> None:
        """Keep other processes from both files, and read what an earlier call left."""
        self.done = None if overwrite else _done(self.whole, self.made_of)
        for file in dict.fromkeys((self.whole, self.file)):
            keep = self.done is not None and file.exists()
            stack.enter_context(claimed(file) if keep else reserved(file, overwrite=overwrite, kind=KIND))

    def finish(
        self, predictor: Predictor, score: Callable[..., Predictions], progress: Bars | None
    ) -> SplitFiles:
        kept = self.done is not None and self.file.exists()
        if self.done is None:
            with nullcontext() if progress is None else progress(self.dataset.split) as advance:
                found = score(self.dataset, features=self.store, progress=advance)
            self.done = replace(found, meta=self._meta(predictor.bundle.provenance))
            self.done.save(self.whole)
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
    """`root`, else the folder of the data set that the run was trained on.

    Raises:
        ConfigError: the bundle does not know it.
    """
    known = root or trained_on(run)["root"]
    if known is None:
        raise ConfigError("the bundle does not know its data set; say --root FOLDER.")
    return Path(known)


def regions_of_run(
    predictor: Predictor,
    run: Path,
    images: "Mapping[str, Any] | Split",
    features: Path | str | None = None,
    more_features: Path | str | None = None,
) -> RegionSource | None:
    """Where the regions of `images` come from: what is given, else what the run was trained with.

    Args:
        images: pictures by key, or the data set that has them.

    Raises:
        ConfigError: the model needs one store more, or fewer.
    """
    places, merge = trained_on(run), predictor.bundle.provenance.get("region_merge")
    if more_features is not None and merge in (None, "detector_only"):
        raise ConfigError("the model was trained on one feature store; leave --more-features out.")
    more = more_features or places["more_features"]
    if more is None and merge not in (None, "detector_only"):
        raise ConfigError("the model was trained on two feature stores; say --more-features FOLDER.")
    main = features or places["features"]
    stores: tuple[str, ...] = getattr(images, "stores", ())
    source: Any = images
    pictures: Mapping[str, Any] = getattr(source, "images", source)
    return open_regions(predictor.processor, main, pictures, more=more, merge=merge or "vilio", stores=stores)


def _splits(
    data: "Data", root: Path, splits: Sequence[str] | None, about: Mapping[str, Any]
) -> tuple[str, ...]:
    """Those that are given, else those that the data set says, else all but that of training."""
    if not splits:
        found, trained = data.splits(root), (about.get("training") or {}).get("split")
        splits = data.kind.predicted or [split for split in found if split != trained] or found
    for split in splits:  # a wrong name shows before the first split is scored
        require_name(split, "a split")
        data.find_files(root, split)
    return tuple(dict.fromkeys(splits))


def _bundle_checksum(run: Path) -> str:
    """Of all that decides what the model answers; the README and metrics do not."""
    folder = find_bundle(run)
    names = ("bundle.yaml", "weights.safetensors", "files")
    return digest([[name, file_checksum(folder / name)] for name in names if (folder / name).exists()])


def _inputs(predictor: Predictor, dataset: "Split", store: RegionSource | None) -> dict[str, Any]:
    """What else decides the scores. No paths: the same files may lie elsewhere."""
    pixels = "pixels" in predictor.needs or predictor.processor.prepare is not None
    return {
        "data": digest([dataset.node, dataset.split, [*checksums(dataset.files).values()]]),
        "features": None if store is None else digest(store.meta.as_dict()),
        "pictures": picture_checksum(dataset.images) if pixels else None,
        "precision": predictor.precision,
    }


def _done(path: Path, made_of: Mapping[str, Any]) -> Predictions | None:
    """What an earlier call left, if it made the same of the same.

    Raises:
        ConfigError: it was made of something else.
    """
    if not path.is_file():
        return None
    try:
        found = Predictions.load(path)
    except DiptychError:  # `reserved` says that it is kept
        return None
    before = found.meta.get("made_of")
    if not isinstance(before, Mapping):  # of diptych 0.1, or of `diptych ensemble`
        return None
    if different := [name for name, one in made_of.items() if before.get(name) != one]:
        raise ConfigError(
            f"{path} exists and was made with other inputs ({', '.join(different)} differ), so it is kept; "
            "choose another place or say overwrite=true."
        )
    return found
