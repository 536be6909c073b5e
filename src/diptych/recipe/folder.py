"""The folder of one run: whose it is, what it was made of, and who writes it in a distributed run."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from diptych.data.inputs import checksums
from diptych.documents import read_json, read_yaml
from diptych.errors import ConfigError, FormatError, first_five
from diptych.files import MARK, atomic_file, claimed

CONFIG, INPUTS, LOCK = "config.yaml", "inputs.json", ".run.lock"
ASIDE, MOVING = ".replaced", ".moving"  # a run that another one replaces
WRITTEN = (
    CONFIG,
    INPUTS,
    "places.json",
    "metrics.csv",
    "bundle",
    "checkpoints",
    "files",
    "tensorboard",
)  # by a run
OWN = (  # what may be in the folders among these
    f"bundle/{MARK}", "bundle/bundle.yaml", "bundle/weights.safetensors", "bundle/README.md",
    "bundle/files/*",
    "checkpoints/last.ckpt", "checkpoints/best.ckpt", "files/vocabulary.txt", "files/fasttext.bin",
    "tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml", "*.part",
)  # fmt: skip
PICTURES = "(pictures)"  # among the inputs; every other one is a path
KEYS = {"model", "processor", "task", "data", "optim", "out"}  # of the settings of a run
FREE_TO_CHANGE = ("progress", "loggers", "overwrite", "data.workers")  # do not change what is trained


def is_first_process() -> bool:
    """False in the further processes of a distributed run, however it was launched."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def await_file(path: Path, *, seconds: float = 600) -> None:
    """Wait for what the first process writes."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            raise ConfigError(f"{path} did not appear; the first process of this run must write it.")
        time.sleep(0.05)


@contextmanager
def entered(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """The first process holds the folder while the block runs; further ones wait for its settings before."""
    if is_first_process():
        with held(folder, config):
            yield
    else:
        await_file(folder / CONFIG)
        yield


class _Plain(yaml.SafeDumper):
    """Values that occur twice are written twice; `read_yaml` takes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@contextmanager
def held(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Keep other processes from the folder while the block runs; it is new, or holds this very run.

    An old run is replaced when asked to. Until `write_settings`, it lies aside: if the block fails before, or
    the process is killed, the old run comes back.

    Raises:
        ConfigError: it holds another run, or what no run wrote; an input has changed; or another process
            trains into it.
    """
    killed = (folder / LOCK).exists()  # by its lock, a folder of ours that has no settings yet
    with claimed(folder, lock=folder / LOCK):
        _recover(folder)
        _require_own(folder, config, killed=killed)
        try:
            yield
        except BaseException:
            if not (folder / CONFIG).exists():  # it never began
                _clear(folder)
                _recover(folder)
            raise


def write_settings(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """From here on the folder belongs to this run.

    Args:
        inputs: `checksums`, and below `PICTURES` that of the pictures.

    Raises:
        ConfigError: the run goes on, with other pictures than it began with.
    """
    if (folder / INPUTS).exists():
        began = read_json(folder / INPUTS, dict[str, str]).get(PICTURES)
        if began not in (None, inputs.get(PICTURES)):
            raise ConfigError(
                f"pictures have other names or sizes than when the run in {folder} began. Put the old ones "
                "back, choose another out=, or say overwrite=true to train again."
            )
    with atomic_file(folder / INPUTS, "w", encoding="utf-8") as file:
        json.dump(inputs, file, indent=1)
    with atomic_file(folder / CONFIG, "w", encoding="utf-8") as file:
        yaml.dump(dict(config), file, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    _recover(folder)


def _require_own(folder: Path, config: Mapping[str, Any], *, killed: bool) -> None:
    path = folder / CONFIG
    if not path.exists():
        strange = sorted({entry.name for entry in folder.iterdir()} - {LOCK})
        if strange and not killed:
            raise ConfigError(f"{folder} holds {strange[0]!r} but no run; choose another out=.")
        _clear(folder)
        return
    before = _settings(path)
    if not ((folder / "bundle").exists() or any(folder.glob("checkpoints/*.ckpt"))):
        _clear(folder)  # what a run left that failed before its first checkpoint
        return
    different, changed = sorted(_differences(before, config)), _changed(folder)
    overwrite = bool(config.get("overwrite"))
    if different and not overwrite:
        raise ConfigError(
            f"{folder} holds a run with other settings ({first_five(different)}). "
            "Choose another out=, or say overwrite=true to replace it."
        )
    if changed and not overwrite:
        more = f" ({len(changed) - 1} more)" if changed[1:] else ""
        raise ConfigError(
            f"{changed[0]} has changed since the run in {folder} read it{more}. Put the old content back, "
            "choose another out=, or say overwrite=true to train again."
        )
    if overwrite and (different or changed or (folder / "bundle").exists()):
        _require_only_own(folder)
        _set_aside(folder)


def _changed(folder: Path) -> list[str]:
    """Inputs of the run in `folder` that are other ones now; those that are gone do not count."""
    if not (folder / INPUTS).exists():  # runs of diptych 0.1 do not know
        return []
    advice = f"Choose another out=, or remove {folder}."
    before = read_json(folder / INPUTS, dict[str, str], advice=advice)
    now = checksums(path for path in map(Path, before.keys() - {PICTURES}) if path.exists())
    return [name for name, one in now.items() if before[name] != one]


def _set_aside(folder: Path) -> None:
    moving = folder / MOVING
    moving.mkdir()
    for name in WRITTEN:
        if (folder / name).exists():
            os.replace(folder / name, moving / name)
    os.replace(moving, folder / ASIDE)  # from here on, what lies in `folder` is of the new run


def _recover(folder: Path) -> None:
    """End what a killed process began: put the run aside back, unless another has begun in its place."""
    aside, moving = folder / ASIDE, folder / MOVING
    if aside.is_dir() and (folder / CONFIG).exists():
        shutil.rmtree(aside)
    elif aside.is_dir():
        _clear(folder)
        os.replace(aside, moving)
    if moving.is_dir():
        for name in reversed(WRITTEN):  # the settings last: they say that a run is there
            if (moving / name).exists():
                os.replace(moving / name, folder / name)
        moving.rmdir()


def _clear(folder: Path) -> None:
    """Remove what a run writes.

    Raises:
        ConfigError: there is something else among it.
    """
    _require_only_own(folder)
    for name in WRITTEN:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _require_only_own(folder: Path) -> None:
    for name in WRITTEN:
        for one in (folder / name).rglob("*"):
            short = one.relative_to(folder).as_posix()
            own = any(fnmatch(short, pattern) for pattern in OWN)
            if one.is_symlink() or (not own and not one.is_dir()):
                raise ConfigError(f"{folder} holds {short}, which no run wrote; choose another out=.")


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = read_yaml(path, dict[str, Any])
        missing = sorted(KEYS - settings.keys())
    except FormatError as error:
        settings, missing = {}, [str(error)]
    if missing:
        raise FormatError(f"{path}: not the settings of a run ({missing[0]}). Choose another out=.")
    return settings


def _differences(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = {**before, **after}
        return [
            line
            for key in keys
            for line in _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if before == after or path in FREE_TO_CHANGE else [f"{path} was {before!r}, now {after!r}"]
