"""On-disk progress of an extraction, so that an interrupted run can resume."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from diptych.detect.extractor import ExtractSettings
from diptych.detect.listing import PictureFile
from diptych.documents import closed, read_json
from diptych.errors import AGAIN, OVERWRITE, RESUME, ConfigError, FormatError
from diptych.features import Fault, FeatureStore, join_parts
from diptych.features.store import INDEX, partial_folder
from diptych.features.writer import holds_only, require_replaceable
from diptych.files import atomic_file, claimed, require_new

PLAN = "plan.json"
RECORDS = (PLAN, "part-*.json", ".*.part")
FILES = ("weights", "given")  # settings whose files are compared by content
FREE = ("batch",)  # settings that do not change the result

PlanNode = dict[str, Any]


@closed
class FaultNode(TypedDict):
    """An image that could not be used."""

    id: str
    reason: str


@closed
class DoneNode(TypedDict):
    """The record of a shard."""

    pictures: int
    bad: list[FaultNode]


@closed
class ReportNode(TypedDict):
    """The report of a finished store."""

    plan: PlanNode
    images: int
    regions: int
    fewer: int
    bad: list[FaultNode]


class Shard(NamedTuple):
    """Images whose regions become one file of every store."""

    number: int
    pictures: tuple[PictureFile, ...]


class ShardResult(NamedTuple):
    """Result of a shard: its number of images, and those of them that could not be used."""

    number: int
    pictures: int
    bad: tuple[Fault, ...]


class StoreReport(NamedTuple):
    """A finished store; `fewer` is the number of images with fewer boxes than the rule requires."""

    path: Path
    images: int
    regions: int
    fewer: int
    bad: tuple[Fault, ...]


class ExtractionProgress:
    """The folder `OUT/NAME.extract` with the plan and one record per finished shard.

    A record is written after all files of its shard are in place.
    """

    def __init__(self, out: Path, settings: ExtractSettings) -> None:
        # Absolute, because worker processes may have another working folder.
        files = {name: path.absolute() for name in FILES if (path := getattr(settings, name)) is not None}
        self.out, self.settings = out.absolute(), replace(settings, **files)
        self.folder = self.out / f"{settings.name}.extract"
        self.stores = {self.out / name: least for name, (_, least) in settings.stores().items()}

    def plan(self, pictures: Sequence[PictureFile], shard: int) -> PlanNode:
        """Everything that determines the bytes of the stores."""
        values = {name: value for name, value in asdict(self.settings).items() if name not in FREE}
        for name in FILES:
            # by content: the file may move between two runs, or change under the same name
            values[name] = None if values[name] is None else _digest(values[name])
        # a digest, since the plan of a million images would otherwise be a large file
        keys = sha256("\n".join(picture.key for picture in pictures).encode()).hexdigest()
        values |= {"pictures": len(pictures), "keys": keys, "shard": shard}
        plan: PlanNode = json.loads(
            json.dumps(values)
        )  # tuples become lists, as in the plan that is read back
        return plan

    @contextmanager
    def opened(self, plan: PlanNode, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Lock the folder while the block runs; with `resume` it keeps the records of an earlier run.

        Raises:
            ConfigError: something that must be kept exists there, the earlier run had another plan, or
                another process uses the folder.
        """
        going_on = resume and (self.folder / PLAN).is_file()
        partials = {store: partial_folder(store) for store in self.stores}
        for store, part in partials.items():
            # a resumed run may have finished this store already: its shards are gone, and it is not replaced
            if part.is_dir() or not going_on:
                require_replaceable(store, overwrite=overwrite)
                require_new(_report(store), overwrite=overwrite, kind="a report of extraction")
        if self.folder.exists() and not holds_only(self.folder, RECORDS):
            raise ConfigError(f"{self.folder} holds files that are not part of a run and is kept; remove it.")
        left = [
            *self.folder.glob("*.json"),
            *(file for part in partials.values() for file in part.glob("*part-*")),
        ]
        if left and not going_on and not overwrite:
            raise ConfigError(
                f"{left[0].parent} holds the finished part of an interrupted run; set {RESUME} to "
                f"continue it, or {OVERWRITE} to start again."
            )
        with claimed(self.folder):
            self.folder.mkdir(exist_ok=True)
            if going_on:
                before = read_json(self.folder / PLAN, PlanNode, advice=AGAIN)
                _require_same(before, plan, self.folder)
                yield
                return
            try:
                for file in left:
                    file.unlink()
                for part in partials.values():
                    part.mkdir(exist_ok=True)
                _write(self.folder / PLAN, plan)
                yield
            except BaseException:
                if not any(self.folder.glob("part-*.json")):  # no finished shard that a later run could use
                    self._discard(partials.values())
                raise

    def _discard(self, partials: Iterable[Path]) -> None:
        for part in partials:
            for file in part.glob("*part-*"):
                file.unlink()
            with suppress(OSError):  # not empty: it holds files of the user
                part.rmdir()
        if holds_only(self.folder, RECORDS):
            shutil.rmtree(self.folder)

    def record(self, done: ShardResult) -> None:
        """Record that all files of a shard are in place."""
        _write(self._record(done.number), {"pictures": done.pictures, "bad": _plain(done.bad)})

    def recorded(self, number: int) -> ShardResult | None:
        """The result of a shard; None if it is not finished."""
        path = self._record(number)
        if not path.is_file():
            return None
        values = read_json(path, DoneNode, advice="Remove it; its images are then processed again.")
        return ShardResult(number, values["pictures"], _faults(values["bad"]))

    def finish(self, plan: PlanNode, bad: Sequence[Fault], *, overwrite: bool) -> None:
        """Join the shards of each store, and write its report next to it.

        Raises:
            FormatError: no image could be used.
        """
        images = plan["pictures"] - len(bad)
        if not images:
            raise FormatError(f"none of {len(bad)} image(s) could be used; the first: {bad[0]}")
        for store, least in self.stores.items():
            if partial_folder(store).is_dir():  # else an interrupted run has joined it already
                join_parts(store, images=images, overwrite=overwrite)
            counts = FeatureStore(store).counts()
            values = {"images": images, "regions": int(counts.sum()), "fewer": int((counts < least).sum())}
            _write(_report(store), {"plan": plan, **values, "bad": _plain(bad)})
        shutil.rmtree(self.folder)  # last, so that a killed run can finish the remaining stores

    def sweep(self) -> None:
        """Remove the records of a run that was killed after its stores were finished."""
        with claimed(self.folder):
            if holds_only(self.folder, RECORDS):
                shutil.rmtree(self.folder)

    def finished(self, plan: PlanNode) -> list[StoreReport] | None:
        """The reports of a finished run with this plan; None if there is no such run."""
        reports = []
        for store in self.stores:
            if not ((store / INDEX).is_file() and _report(store).is_file()):
                return None
            values = read_json(_report(store), ReportNode, advice=AGAIN)
            if values["plan"] != plan:
                return None
            counts = values["images"], values["regions"], values["fewer"]
            reports.append(StoreReport(store, *counts, _faults(values["bad"])))
        return reports

    def _record(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.json"


def _require_same(before: PlanNode, now: PlanNode, folder: Path) -> None:
    if other := [name for name in now if before.get(name) != now[name]]:
        shown = ", ".join(f"{name} {before.get(name)!r} (now {now[name]!r})" for name in other)
        raise ConfigError(
            f"{folder} is from a run with other settings: {shown}. Use the same settings, or set "
            f"{OVERWRITE} to start again."
        )


def _report(store: Path) -> Path:
    return store.with_name(f"{store.name}.json")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _plain(faults: Sequence[Fault]) -> list[FaultNode]:
    return [{"id": fault.id, "reason": fault.reason} for fault in faults]


def _faults(values: Sequence[FaultNode]) -> tuple[Fault, ...]:
    return tuple(Fault(0, **value) for value in values)


def _write(path: Path, values: dict[str, Any]) -> None:
    with atomic_file(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=1)
        file.write("\n")
