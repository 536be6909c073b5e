"""The folder of one run: whose it is, and who writes it in a distributed run."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diptych.errors import ConfigError, FormatError
from diptych.files import atomic_file, make_parents

FOLDERS = ("bundle", "checkpoints", "files", "tensorboard")  # what a run writes
FILES = ("config.yaml", "metrics.csv")
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


def require_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """The folder is new, or holds this very run; an old run is removed when asked to."""
    make_parents(folder / "config.yaml")
    path = folder / "config.yaml"
    began = (folder / "bundle").exists() or any(folder.glob("checkpoints/*.ckpt"))
    ours = {*FOLDERS, *FILES} if path.exists() else {"files"}
    if path.exists() and began:
        before = _settings(path)
        different = sorted(_differences(before, config))
        if different and not config.get("overwrite"):
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(different[:5])}). "
                "Choose another out=, or say overwrite=true to replace it."
            )
        if config.get("overwrite") and (different or (folder / "bundle").exists()):
            _clear(folder)
    elif strange := sorted({entry.name for entry in folder.glob("*")} - ours):
        raise ConfigError(f"{folder} holds {strange[0]!r} but no run; choose another out=.")
    else:
        _clear(folder)  # what a run left that failed before its first checkpoint


def write_settings(folder: Path, config: Mapping[str, Any]) -> None:
    """From here on the folder belongs to this run."""
    with atomic_file(folder / "config.yaml", "w", encoding="utf-8") as file:
        yaml.safe_dump(dict(config), file, sort_keys=False, allow_unicode=True)


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        settings = error
    if not isinstance(settings, Mapping):
        raise FormatError(f"{path}: not the settings of a run. Choose another out=, or remove that folder.")
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
