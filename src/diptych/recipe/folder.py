"""Folder of a run: its settings and inputs, replacement of an old run, and locking between processes."""

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
from diptych.errors import OVERWRITE, ConfigError, FormatError, first_five
from diptych.files import MARK, atomic_file, claimed

CONFIG, INPUTS, LOCK = "config.yaml", "inputs.json", ".run.lock"
# A replaced run is moved file by file to MOVING, then MOVING is renamed to ASIDE. ASIDE is therefore always
# complete; a MOVING folder means that a process was killed while moving.
ASIDE, MOVING = ".replaced", ".moving"
WRITTEN = (  # files and folders that a run writes
    CONFIG,
    INPUTS,
    "places.json",
    "metrics.csv",
    "bundle",
    "checkpoints",
    "files",
    "tensorboard",
)
OWN = (  # patterns of the files in the folders among these; anything else is the user's and is not deleted
    f"bundle/{MARK}", "bundle/bundle.yaml", "bundle/weights.safetensors", "bundle/README.md",
    "bundle/files/*",
    "checkpoints/last.ckpt", "checkpoints/best.ckpt", "files/vocabulary.txt", "files/fasttext.bin",
    "tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml", "*.part",
)  # fmt: skip
PICTURES = "(pictures)"  # key of the pictures' checksum in INPUTS; all other keys are paths
KEYS = {"model", "processor", "task", "data", "optim", "out"}  # keys that every configuration has
FREE_TO_CHANGE = ("progress", "loggers", "overwrite", "data.workers")  # settings without effect on weights


def is_first_process() -> bool:
    """Whether this is the first or only process of a run, launched by Fabric, torchrun or SLURM."""
    # torchrun sets RANK, Fabric sets LOCAL_RANK on one machine, and SLURM sets SLURM_PROCID
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def await_file(path: Path, *, seconds: float = 600) -> None:
    """Wait for a file that the first process writes.

    Raises:
        ConfigError: the file does not appear in time.
    """
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            raise ConfigError(
                f"{path} did not appear in {seconds:g} s; the first process of this run must write it."
            )
        time.sleep(0.05)


@contextmanager
def entered(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Run a block in the run's folder: the first process locks it, others first wait for its settings."""
    if is_first_process():
        with held(folder, config):
            yield
    else:
        await_file(folder / CONFIG)
        yield


class _Plain(yaml.SafeDumper):
    """Dumper without aliases: `read_yaml` rejects them, because nested aliases can exhaust memory."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@contextmanager
def held(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Lock the folder while the block runs, and check that it is new or holds this run.

    With `overwrite=true`, an old run is replaced. It is kept aside until `write_settings`: if the block fails
    or the process is killed before, the old run is restored.

    Raises:
        ConfigError: the folder holds another run or files that no run wrote, an input has changed, or another
            process uses the folder.
    """
    killed = (folder / LOCK).exists()  # a lock without a process: a run was killed here
    with claimed(folder, lock=folder / LOCK):
        _recover(folder)
        _require_own(folder, config, killed=killed)
        try:
            yield
        except BaseException:
            if not (folder / CONFIG).exists():  # failed before `write_settings`: remove what it left
                _clear(folder)
                _recover(folder)
            raise


def write_settings(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Write the settings and inputs of a run. From then on, the folder belongs to this run.

    Args:
        inputs: checksums by path, and the checksum of the pictures by `PICTURES`.

    Raises:
        ConfigError: the run was started earlier, with other pictures.
    """
    if (folder / INPUTS).exists():
        began = read_json(folder / INPUTS, dict[str, str]).get(PICTURES)
        if began not in (None, inputs.get(PICTURES)):
            raise ConfigError(
                f"pictures have other names or sizes than when the run in {folder} started. Restore them, "
                f"choose another out=, or add {OVERWRITE} to train again."
            )
    with atomic_file(folder / INPUTS, "w", encoding="utf-8") as file:
        json.dump(inputs, file, indent=1)
    # after the inputs: CONFIG says that a run is here, and other processes wait for it
    with atomic_file(folder / CONFIG, "w", encoding="utf-8") as file:
        yaml.dump(dict(config), file, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    _recover(folder)  # a new run is here now, so this deletes the replaced one


def _require_own(folder: Path, config: Mapping[str, Any], *, killed: bool) -> None:
    path = folder / CONFIG
    if not path.exists():
        strange = sorted({entry.name for entry in folder.iterdir()} - {LOCK})
        if strange and not killed:
            raise ConfigError(f"{folder} contains {strange[0]!r} but no run; choose another out=.")
        _clear(folder)
        return
    before = _settings(path)
    if not ((folder / "bundle").exists() or any(folder.glob("checkpoints/*.ckpt"))):
        _clear(folder)  # a run failed before its first checkpoint: nothing to continue or to keep
        return
    # Other settings or other data would make another run of it.
    different, changed = sorted(_differences(before, config)), _changed(folder)
    overwrite = bool(config.get("overwrite"))
    if different and not overwrite:
        raise ConfigError(
            f"{folder} contains a run with other settings ({first_five(different)}). "
            f"Choose another out=, or add {OVERWRITE} to replace it."
        )
    if changed and not overwrite:
        more = f" ({len(changed) - 1} more)" if changed[1:] else ""
        raise ConfigError(
            f"{changed[0]} has changed since the run in {folder} read it{more}. Restore the old content, "
            f"choose another out=, or add {OVERWRITE} to train again."
        )
    # `overwrite` alone continues an interrupted run of equal settings.
    if overwrite and (different or changed or (folder / "bundle").exists()):
        _require_only_own(folder)
        _set_aside(folder)


def _changed(folder: Path) -> list[str]:
    """Return the inputs whose content has changed since the run in `folder` read them.

    Missing files do not count; opening them gives a better error if the run needs them.
    """
    if not (folder / INPUTS).exists():  # a run of diptych 0.1, which did not record them
        return []
    advice = f"Choose another out=, or remove {folder}."
    before = read_json(folder / INPUTS, dict[str, str], advice=advice)
    now = checksums(path for path in map(Path, before.keys() - {PICTURES}) if path.exists())
    return [name for name, checksum in now.items() if before[name] != checksum]


def _set_aside(folder: Path) -> None:
    """Move a run to ASIDE."""
    moving = folder / MOVING
    moving.mkdir()
    for name in WRITTEN:
        if (folder / name).exists():
            os.replace(folder / name, moving / name)
    os.replace(moving, folder / ASIDE)  # atomic: from here on, the files in `folder` are of the new run


def _recover(folder: Path) -> None:
    """Complete what a killed process left: restore the replaced run, or delete it if the new run started."""
    aside, moving = folder / ASIDE, folder / MOVING
    if aside.is_dir() and (folder / CONFIG).exists():
        shutil.rmtree(aside)
    elif aside.is_dir():
        _clear(folder)
        os.replace(aside, moving)
    if moving.is_dir():
        for name in reversed(WRITTEN):  # CONFIG last: it says that a run is here
            if (moving / name).exists():
                os.replace(moving / name, folder / name)
        moving.rmdir()


def _clear(folder: Path) -> None:
    """Remove all files of a run.

    Raises:
        ConfigError: there are other files among them; nothing is removed then.
    """
    _require_only_own(folder)
    for name in WRITTEN:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _require_only_own(folder: Path) -> None:
    for name in WRITTEN:
        for entry in (folder / name).rglob("*"):
            short = entry.relative_to(folder).as_posix()
            own = any(fnmatch(short, pattern) for pattern in OWN)
            if entry.is_symlink() or (not own and not entry.is_dir()):  # runs write no links
                raise ConfigError(f"{folder} contains {short}, which no run wrote; choose another out=.")


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = read_yaml(path, dict[str, Any])
        missing = sorted(KEYS - settings.keys())
    except FormatError as error:
        settings, missing = {}, [str(error)]
    if missing:
        raise FormatError(f"{path}: not the settings of a run ({missing[0]}); choose another out=.")
    return settings


def _differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Describe the settings that differ, by dotted key."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = {**before, **after}
        return [
            line
            for key in keys
            for line in _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
        ]
    # also if a key is missing on one side: its value is None then
    return [] if before == after or path in FREE_TO_CHANGE else [f"{path} was {before!r}, now {after!r}"]
