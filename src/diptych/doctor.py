"""Diagnosis of an installation: versions, devices and optional libraries."""

import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from diptych import __version__

MODULES = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "hydra-core": "hydra",
    "pyyaml": "yaml",
}  # import names of distributions, if different
LOW_DISK, LOW_MEMORY = 5, 4  # GB


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An optional library.

    Args:
        group: name of the extra in `pip install "diptych[group]"`; empty for libraries without an extra.
    """

    module: str
    distribution: str
    group: str
    purpose: str

    @property
    def install(self) -> str:
        what = f'"diptych[{self.group}]"' if self.group else self.distribution
        return f"pip install {what}"


EXTRAS = tuple(
    Extra(module=module, distribution=distribution, group=group, purpose=purpose)
    for module, distribution, group, purpose in (
        ("huggingface_hub", "huggingface_hub", "hub", "weights from the hub"),
        ("floret", "floret", "fasttext", "fastText sentence vectors"),
        ("ftfy", "ftfy", "clip", "the cleaning of CLIP's texts"),
        ("lmdb", "lmdb", "lmdb", "features in LMDB"),
        ("h5py", "h5py", "hdf5", "features in HDF5"),
        ("matplotlib", "matplotlib", "report", "figures and picture pages"),
        ("sacrebleu", "sacrebleu", "translate", "BLEU and chrF of translations"),
        ("rapidocr", "rapidocr", "ocr", "words in pictures"),
        ("onnxruntime", "onnxruntime", "ocr", "words in pictures"),
        ("ray", "ray", "ray", "extraction, prediction and the service on a cluster"),
        ("starlette", "starlette", "serve", "the service"),
        ("uvicorn", "uvicorn", "serve", "the service"),
        ("python_multipart", "python-multipart", "serve", "pictures sent to the service"),
        ("msgspec", "msgspec", "serve", "requests of the service"),
        ("prometheus_client", "prometheus-client", "serve", "metrics of the service"),
        ("tensorboard", "tensorboard", "tensorboard", "TensorBoard logs"),
        ("wandb", "wandb", "", "Weights & Biases logs"),
        ("mlflow", "mlflow", "", "MLflow logs"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the diagnosis.

    Args:
        status: "missing" means an optional library is not installed; "problem" needs to be fixed.
        advice: what to do about it, or an empty string.
    """

    name: str
    value: str
    status: Literal["ok", "missing", "problem"] = "ok"
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    sections: tuple[Section, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; missing options do not count."""
        return all(entry.status != "problem" for part in self.sections for entry in part.entries)

    def as_dict(self) -> dict[str, dict[str, Mapping[str, str]]]:
        """Return JSON values: for each title and name, the value, status and advice."""
        return {
            section.title: {
                entry.name: {"value": entry.value, "status": entry.status, "advice": entry.advice}
                for entry in section.entries
            }
            for section in self.sections
        }

    def lines(self) -> list[str]:
        """Format for the terminal: a mark, name, value and advice; blank lines between sections."""
        marks = {"ok": " ", "missing": "-", "problem": "!"}
        width = max(len(entry.name) for section in self.sections for entry in section.entries)
        lines: list[str] = []
        for section in self.sections:
            lines += ["", section.title] if lines else [section.title]
            for entry in section.entries:
                advice = f"   {entry.advice}" if entry.advice else ""
                lines.append(f"{marks[entry.status]} {entry.name:<{width}}  {entry.value}{advice}")
        return lines


def diagnose(folder: Path | str = ".") -> Diagnosis:
    """Examine this machine. Takes seconds, because every library is imported.

    Args:
        folder: output folder of runs; its free space is reported.
    """
    parts = {
        "versions": (_python(), *map(_core, core())),
        "devices": (_processor(), _memory(), *_accelerators(), _disk(Path(folder))),
        "options": tuple(map(_extra, EXTRAS)),
    }
    return Diagnosis(
        sections=tuple(Section(title=title, entries=entries) for title, entries in parts.items())
    )


def core() -> list[str]:
    """Distributions that diptych requires, from its metadata."""
    required = [requirement for requirement in requires("diptych") or () if "extra ==" not in requirement]
    # A requirement is a name, then versions and markers: `torch>=2.4; python_version < "3.13"`.
    return [name[0] for requirement in required if (name := re.match(r"[\w.-]+", requirement))]


def _python() -> Entry:
    return Entry(name="diptych", value=f"{__version__}, Python {platform.python_version()}")


def _core(distribution: str) -> Entry:
    try:
        installed = version(distribution)
    except PackageNotFoundError:
        return Entry(
            name=distribution, value="not installed", status="problem", advice=f"pip install {distribution}"
        )
    if reason := _import_error(MODULES.get(distribution, distribution.replace("-", "_"))):
        return Entry(
            name=distribution,
            value=f"{installed}, but does not load: {reason}",
            status="problem",
            advice=f"pip install --force-reinstall {distribution}",
        )
    return Entry(name=distribution, value=installed)


def _extra(extra: Extra) -> Entry:
    name = f"{extra.distribution} ({extra.purpose})"
    try:
        installed = version(extra.distribution)
    except PackageNotFoundError:
        return Entry(name=name, value="not installed", status="missing", advice=extra.install)
    if reason := _import_error(extra.module):
        value = f"{installed}, but does not load: {reason}"
        return Entry(name=name, value=value, status="missing", advice=extra.install)
    return Entry(name=name, value=installed)


def _import_error(module: str) -> str:
    # An import may raise anything: a torchvision built for another torch raises RuntimeError.
    try:
        import_module(module)
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _processor() -> Entry:
    # Containers and schedulers may allow fewer cores than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        from torch import get_num_threads
    except Exception:  # torch is broken, which `_core` reports
        return Entry(name="processor", value=f"{usable} cores")
    return Entry(name="processor", value=f"{usable} cores, PyTorch uses {get_num_threads()} threads")


def _memory() -> Entry:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return Entry(name="memory", value="unknown")
    few = total < LOW_MEMORY
    return Entry(
        name="memory",
        value=f"{total:.0f} GB",
        status="problem" if few else "ok",
        advice="use small batches and the tiny models" if few else "",
    )


def _accelerators() -> tuple[Entry, ...]:
    try:
        # Inside of `try`: a torch that does not load is one of the things to report.
        import torch

        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        devices = [
            Entry(name=f"cuda:{index}", value=f"{device.name}, {device.total_memory / 1e9:.0f} GB")
            for index, device in enumerate(properties)
        ]
        if torch.backends.mps.is_available():
            devices.append(Entry(name="mps", value="available"))
    except Exception as error:
        return (Entry(name="accelerator", value=f"cannot be queried: {error}", status="problem"),)
    return tuple(devices) or (Entry(name="accelerator", value="none; models run on the processor"),)


def _disk(folder: Path) -> Entry:
    # The folder may not exist yet; its first existing parent is on the same disk.
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    few = free < LOW_DISK
    return Entry(
        name=f"free space in {there}",
        value=f"{free:.0f} GB",
        status="problem" if few else "ok",
        advice="checkpoints of base models take 1.3 GB each; free space or set another out=" if few else "",
    )
