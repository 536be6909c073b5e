"""Writes feature stores image by image, in bounded memory; a store appears complete or not at all."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy import ndarray

from diptych.errors import OVERWRITE, RESUME, ConfigError, DiptychError, FormatError
from diptych.features.shard import (
    Pending,
    ShardFile,
    image_digest,
    read_metadata,
    read_shard,
    schema_metadata,
)
from diptych.features.store import INDEX, FeatureStore, partial_folder, store_checksum
from diptych.files import atomic_file, claimed, recover_folder, replace_folder, require_apart, require_new
from diptych.types import OPTIONAL_REGION_FIELDS, FeatureMeta, Regions

BATCH_BYTES = 16 << 20  # of images in memory before they are written as one record batch
FIELDS = ("boxes", "features", *OPTIONAL_REGION_FIELDS)
DTYPES = {"boxes": "float32", "labels": "int64", "attributes": "int64"}
DTYPES |= {"scores": "float32", "attribute_scores": "float32"}  # the others have FeatureMeta.dtype


def write_store(
    path: Path | str,
    items: Iterable[tuple[str, Regions]],
    meta: FeatureMeta,
    *,
    shard_bytes: int = 256 << 20,
    resume: bool = False,
    overwrite: bool = False,
) -> FeatureStore:
    """Write all `items` to a new store with `StoreWriter`, and open it."""
    with StoreWriter(path, meta, shard_bytes=shard_bytes, resume=resume, overwrite=overwrite) as writer:
        for key, regions in items:
            if key not in writer.done:
                writer.add(key, regions)
    return FeatureStore(path)


class StoreWriter:
    """Writes a feature store, which appears under its name when the `with` block ends without an error.

    Until then, finished shards are in `PATH.partial`. A later writer with `resume` continues from them: their
    keys are in `done`, and the same images in the same order give the same bytes as without interruption.

    Args:
        meta: provenance. Features and soft classes are cast to its `dtype`; the writer sets `count`,
            `checksum` and an unknown `box_rule`.
        shard_bytes: size at which a shard is finished; an interruption loses at most this much.
        resume: continue from the shards of an interrupted writer, if there are any.
        overwrite: replace an existing store at the end; without `resume`, also discard unfinished shards.
    """

    def __init__(
        self,
        path: Path | str,
        meta: FeatureMeta,
        *,
        shard_bytes: int = 256 << 20,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = partial_folder(self.path)
        self.meta = replace(meta, count=0, checksum="")
        self.done: frozenset[str] = frozenset()
        self._shard_bytes, self._resume, self._overwrite = shard_bytes, resume, overwrite
        self._places: dict[str, tuple[int, int, int, int]] = {}  # key: shard, batch, row, count
        self._digests: list[bytes] = []
        self._widths: dict[str, tuple[int, ...]] | None = None  # per field, of the first image
        self._pending = Pending()
        self._shard: ShardFile | None = None
        self._shards: dict[str, int] = {}  # finished: name and bytes
        self._failure: BaseException | None = None
        self._lock = ExitStack()

    def __enter__(self) -> "StoreWriter":
        _require_possible(self.meta, self._shard_bytes)
        require_replaceable(self.path, overwrite=self._overwrite)
        if any(self.partial.glob("part-*.arrow")) and not (self._resume or self._overwrite):
            raise ConfigError(
                f"{self.partial} holds the finished part of an interrupted run; set {RESUME} to continue "
                f"it, or {OVERWRITE} to start again."
            )
        with self._guarded(), ExitStack() as stack:
            stack.enter_context(claimed(self.path))
            recover_folder(self.path)
            # again, now with the lock: another process may have made the store since the first check
            require_replaceable(self.path, overwrite=self._overwrite)
            self.partial.mkdir(exist_ok=True)
            self._clear()
            self._restore()
            self._lock = stack.pop_all()  # held until `__exit__`; released here if something above fails
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock:
            try:
                if error is None:
                    self._finish()
            finally:
                self._leave()

    def __len__(self) -> int:
        """Number of images so far, including those in `done`."""
        return len(self._places)

    def add(self, key: str, regions: Regions) -> None:
        """Append one image.

        Raises:
            FormatError: the key exists, the regions are invalid, or their width or optional fields differ
                from those of the store. Further images can still be added.
            DiptychError: the disk is full. Nothing more can be added.
        """
        self._require_sound()
        if key in self._places:
            raise FormatError(f"{self.path}: image {key!r} is in the store already; expected unique keys.")
        try:
            arrays = _stored(regions, self.meta)  # checked before anything is changed
            self._require_alike(arrays)
        except FormatError as error:
            raise FormatError(f"image {key!r}: {error}") from error
        with self._guarded():
            self._append(key, regions.size, arrays)

    def _append(self, key: str, size: tuple[int, int], arrays: dict[str, ndarray]) -> None:
        digest = image_digest(key, size, arrays)
        # the position that the image will have when the pending batch is written
        batch = 0 if self._shard is None else self._shard.batches
        self._places[key] = (len(self._shards), batch, len(self._pending.keys), len(arrays["boxes"]))
        self._digests.append(digest)
        self._pending.append(key, size, digest, arrays)
        # batches must end at the same images after a resume, so they depend on sizes only, never on time
        if self._pending.nbytes >= min(BATCH_BYTES, self._shard_bytes):
            self._write_pending()

    def _write_pending(self) -> None:
        batch = self._pending.record_batch(schema_metadata(self.meta))
        self._pending = Pending()
        if self._shard is None:
            self._shard = ShardFile(self.partial / part_name(len(self._shards)), batch.schema)
        self._shard.write(batch)
        if self._shard.nbytes >= self._shard_bytes:
            self._finish_shard(self._shard)

    def _finish_shard(self, shard: ShardFile) -> None:
        shard.close()
        self._shards[shard.path.name] = shard.path.stat().st_size
        self._shard = None

    def _finish(self) -> None:
        self._require_sound()
        with self._guarded():
            if self._pending.keys:
                self._write_pending()
            if self._shard is not None:
                self._finish_shard(self._shard)
            self._write_index()  # last: a folder without an index is not a store
            replace_folder(self.partial, self.path)

    def _write_index(self) -> None:
        shard, batch, row, count = (
            np.array([*self._places.values()], np.int32).reshape(-1, 4).T.copy()
        )  # contiguous columns
        self.meta = replace(
            self.meta,
            box_rule=_box_rule(count) if self.meta.box_rule == "unknown" else self.meta.box_rule,
            count=len(count),
            checksum=store_checksum(self._digests),
        )
        columns = {"key": pa.array([*self._places], pa.string())}
        columns |= {"shard": shard, "batch": batch, "row": row, "count": count}
        table = pa.table(columns, metadata=schema_metadata(self.meta, shards=self._shards))
        with atomic_file(self.partial / INDEX) as file, pa.ipc.new_file(file, table.schema) as arrow:
            arrow.write_table(table)

    def _leave(self) -> None:
        """Keep the finished shards of an unfinished store for `resume`; remove everything else."""
        if self._shard is not None:
            self._shard.discard()
        if not self._shards:
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Remember that writing failed, so that a store with missing images is never finished."""
        try:
            yield
        except OSError as error:
            kept = f" Finished shards are kept in {self.partial}; {RESUME} continues." if self._shards else ""
            self._failure = DiptychError(
                f"cannot write the feature store {self.path}: {error.strerror or error}.{kept}"
            )
            raise self._failure from error
        except BaseException as error:  # also Ctrl-C: a batch may be half written
            self._failure = error
            raise

    def _require_sound(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _require_alike(self, arrays: dict[str, ndarray]) -> None:
        widths = _widths(arrays)
        self._widths = self._widths or widths
        if widths != self._widths:
            raise FormatError(
                f"the regions have {_fields(widths)}; expected {_fields(self._widths)} as in the first image."
            )

    def _clear(self) -> None:
        """Remove fragments, and without `resume` finished shards too."""
        patterns = [INDEX, ".*.part", *([] if self._resume else ["part-*.arrow"])]
        for pattern in patterns:
            for file in self.partial.glob(pattern):
                file.unlink()

    def _restore(self) -> None:
        # shards are numbered without gaps: positions in the index depend on it
        for number, path in enumerate(sorted(self.partial.glob("part-*.arrow"))):
            schema, blocks = read_shard(path)
            meta, _ = read_metadata(schema, path)
            if meta != self.meta or path.name != part_name(number):
                raise ConfigError(
                    f"{path} is from a run with other settings: {meta.as_dict()}; now "
                    f"{self.meta.as_dict()}. Use the same settings, or set {OVERWRITE} to start again."
                )
            if blocks:  # a shard of an extraction is empty if none of its images could be used
                self._widths = _widths(blocks[0].flat)
            self._shards[path.name] = path.stat().st_size
            for batch, block in enumerate(blocks):
                self._digests += block.digests
                counts = np.diff(block.offsets).tolist()
                places = [(number, batch, row, count) for row, count in enumerate(counts)]
                self._places.update(zip(block.keys, places, strict=True))
        self.done = frozenset(self._places)


class PartWriter:
    """Writes one shard of a store on its own; it appears when the `with` block ends without an error.

    When all shards are in `PATH.partial`, `join_parts` turns them into the store. The same images give the
    same bytes, no matter which process writes them.

    Args:
        path: path of the store.
        meta: as for `StoreWriter`.
    """

    def __init__(self, path: Path, number: int, meta: FeatureMeta) -> None:
        self.path = partial_folder(path) / part_name(number)
        self.meta = replace(meta, count=0, checksum="")
        self._pending = Pending()
        self._shard: ShardFile | None = None

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._flush().close()
                self._shard = None
        finally:
            if self._shard is not None:
                self._shard.discard()

    def arrays(self, regions: Regions) -> dict[str, ndarray]:
        """The arrays as `append` stores them.

        Raises:
            FormatError: the regions are invalid.
        """
        return _stored(regions, self.meta)

    def append(self, key: str, size: tuple[int, int], arrays: dict[str, ndarray]) -> None:
        self._pending.append(key, size, image_digest(key, size, arrays), arrays)
        if self._pending.nbytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> ShardFile:
        metadata = schema_metadata(self.meta)
        batch = self._pending.record_batch(metadata) if self._pending.keys else None
        if self._shard is None:
            # a shard without images is still a file, so that numbers have no gaps
            schema = pa.schema([], metadata) if batch is None else batch.schema
            self._shard = ShardFile(self.path, schema)
        if batch is not None:
            self._shard.write(batch)
        self._pending = Pending()
        return self._shard


def join_parts(path: Path, *, images: int, overwrite: bool = False) -> FeatureStore:
    """Turn the shards of several `PartWriter`s into a store.

    Raises:
        FormatError: the shards do not hold `images` images.
    """
    first = partial_folder(path) / part_name(0)
    meta, _ = read_metadata(read_shard(first)[0], first)
    # resuming without adding anything checks the shards and writes the index
    with StoreWriter(path, meta, resume=True, overwrite=overwrite) as writer:
        if len(writer) != images:
            raise FormatError(f"{first.parent} holds {len(writer)} images; expected {images}.")
    return FeatureStore(path)


def part_name(number: int) -> str:
    return f"part-{number:05d}.arrow"


def _stored(regions: Regions, meta: FeatureMeta) -> dict[str, ndarray]:
    """Checked copies of the arrays in the types of the store; the caller may reuse its own arrays."""
    regions.verify()
    if max(regions.size) > np.iinfo(np.int32).max:
        raise FormatError(f"the image size is {regions.size}; expected at most 2**31 - 1 pixels.")
    if regions.features.shape[1] != meta.feature_dim:
        raise FormatError(
            f"features are {regions.features.shape[1]} wide; expected {meta.feature_dim}, as in the store."
        )
    present = {name: value for name in FIELDS if (value := getattr(regions, name)) is not None}
    with np.errstate(over="ignore"):  # overflow is found below, with a better message
        arrays = {
            name: np.array(value, DTYPES.get(name, meta.dtype), order="C") for name, value in present.items()
        }
    for name, value in arrays.items():
        if value.dtype.itemsize < present[name].dtype.itemsize and not np.isfinite(value).all():
            raise FormatError(f"{name} are too large for {value.dtype}; write the store as float32.")
    return arrays


def _widths(arrays: dict[str, ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape[1:] for name, value in arrays.items()}


def _fields(widths: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}[{width[0]}]" if width else name for name, width in widths.items())


def _box_rule(counts: ndarray) -> str:
    """The rule that the counts show, such as `36` or `10:100`."""
    if not len(counts):
        return "unknown"
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low}:{high}"


def _require_possible(meta: FeatureMeta, shard_bytes: int) -> None:
    if meta.feature_dim < 1 or meta.dtype not in ("float16", "float32"):
        raise ConfigError(
            f"features are {meta.feature_dim} wide and {meta.dtype!r}; expected a width of at least 1 and "
            "'float16' or 'float32'."
        )
    if shard_bytes < 1:
        raise ConfigError(f"shard_bytes is {shard_bytes}; expected at least 1.")


def require_replaceable(path: Path, *, overwrite: bool) -> None:
    """Allow a new path, an empty folder and, with `overwrite`, a store; refuse everything else.

    Raises:
        ConfigError: something else exists there, or a store exists and `overwrite` is not set.
    """
    require_apart(path, ())
    partial = partial_folder(path)
    if partial.exists() and not holds_only(partial, (INDEX, "part-*.arrow", ".*.part")):
        raise ConfigError(f"{partial} holds files that are not parts of a store and is kept; remove it.")
    if not overwrite or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        require_new(path)
    # the schema of an Arrow file is at its start, as text; opening a damaged store would fail
    elif not holds_only(path, (INDEX, "part-*.arrow")) or b'"diptych features' not in _head(path / INDEX):
        raise ConfigError(f"{path} is not a feature store and is kept; choose another path.")


def holds_only(folder: Path, patterns: tuple[str, ...]) -> bool:
    """Whether the folder holds nothing but files that match the patterns."""
    return folder.is_dir() and all(
        file.is_file() and any(fnmatch(file.name, name) for name in patterns) for file in folder.iterdir()
    )


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(1 << 16)
