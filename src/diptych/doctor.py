"""What is installed here, what is missing for what, and on which devices models can run."""

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
}  # what distributions are imported as, where that is not their name
LOW_DISK, LOW_MEMORY = 5, 4  # GB


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An optional library.

    Args:
        group: what stands in `pip install "diptych[group]"`; empty for libraries of one's own choice.
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
        ("lmdb", "lmdb", "lmdb", "features in LMDB"),
        ("h5py", "h5py", "hdf5", "features in HDF5"),
        ("matplotlib", "matplotlib", "report", "figures and picture pages"),
        ("ray", "ray", "ray", "extraction and prediction on a cluster"),
        ("tensorboard", "tensorboard", "tensorboard", "TensorBoard logs"),
        ("wandb", "wandb", "", "Weights & Biases logs"),
        ("mlflow", "mlflow", "", "MLflow logs"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the diagnosis.

    Args:
        status: "missing" is an option not installed; "problem" is what keeps diptych from working well.
        advice: what to do, or an empty string.
    """

    name: str
    value: str
    status: Literal["ok", "missing", "problem"] = "ok"
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    sections: tuple[Section, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is a problem; missing options are none."""
        return all(finding.status != "problem" for part in self.sections for finding in part.findings)

    def as_dict(self) -> dict[str, dict[str, Mapping[str, str]]]:
        """Plain JSON values: title, name, then value, status and advice."""
        return {
            section.title: {
                finding.name: {"value": finding.value, "status": finding.status, "advice": finding.advice}
                for finding in section.findings
            }
            for section in self.sections
        }

    def lines(self) -> list[str]:
        """The same for reading: a mark, name, value and advice; blank lines between sections."""
        marks = {"ok": " ", "missing": "-", "problem": "!"}
        width = max(len(finding.name) for section in self.sections for finding in section.findings)
        lines: list[str] = []
        for section in self.sections:
            lines += ["", section.title] if lines else [section.title]
            for finding in section.findings:
                advice = f"   {finding.advice}" if finding.advice else ""
                lines.append(f"{marks[finding.status]} {finding.name:<{width}}  {finding.value}{advice}")
        return lines


def diagnose(folder: Path | str = ".") -> Diagnosis:
    """Look at this machine. Takes seconds, because every library is really imported.

    Args:
        folder: where runs would be written; its free space is reported.
    """
    parts = {
        "versions": (_python(), *map(_core, core())),
        "devices": (_processor(), _memory(), *_accelerators(), _disk(Path(folder))),
        "options": tuple(map(_extra, EXTRAS)),
    }
    return Diagnosis(sections=tuple(Section(title=title, findings=found) for title, found in parts.items()))


def core() -> list[str]:
    """Distributions that diptych cannot do without, as its own metadata names them."""
    plain = [one for one in requires("diptych") or () if "extra ==" not in one]
    return [found[0] for one in plain if (found := re.match(r"[\w.-]+", one))]


def _python() -> Finding:
    return Finding(name="diptych", value=f"{__version__}, Python {platform.python_version()}")


def _core(distribution: str) -> Finding:
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return Finding(
            name=distribution, value="not installed", status="problem", advice=f"pip install {distribution}"
        )
    if reason := _import_error(MODULES.get(distribution, distribution.replace("-", "_"))):
        return Finding(
            name=distribution,
            value=f"{found}, but does not load: {reason}",
            status="problem",
            advice=f"pip install --force-reinstall {distribution}",
        )
    return Finding(name=distribution, value=found)


def _extra(extra: Extra) -> Finding:
    name = f"{extra.distribution} ({extra.purpose})"
    try:
        found = version(extra.distribution)
    except PackageNotFoundError:
        return Finding(name=name, value="not installed", status="missing", advice=extra.install)
    if reason := _import_error(extra.module):
        value = f"{found}, but does not load: {reason}"
        return Finding(name=name, value=value, status="missing", advice=extra.install)
    return Finding(name=name, value=found)


def _import_error(module: str) -> str:
    # any exception: a torchvision built for another torch raises RuntimeError
    try:
        import_module(module)
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _processor() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        from torch import get_num_threads
    except Exception:
        return Finding(name="processor", value=f"{usable} cores")
    return Finding(name="processor", value=f"{usable} cores, PyTorch uses {get_num_threads()} threads")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return Finding(name="memory", value="unknown")
    few = total < LOW_MEMORY
    return Finding(
        name="memory",
        value=f"{total:.0f} GB",
        status="problem" if few else "ok",
        advice="use small batches and the tiny models" if few else "",
    )


def _accelerators() -> tuple[Finding, ...]:
    try:
        import torch

        names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found = [
            Finding(name=f"cuda:{index}", value=f"{device.name}, {device.total_memory / 1e9:.0f} GB")
            for index, device in enumerate(names)
        ]
        if torch.backends.mps.is_available():
            found.append(Finding(name="mps", value="available"))
    except Exception as error:
        return (Finding(name="accelerator", value=f"cannot be asked for: {error}", status="problem"),)
    return tuple(found) or (Finding(name="accelerator", value="none; models run on the processor"),)


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    few = free < LOW_DISK
    return Finding(
        name=f"free space in {there}",
        value=f"{free:.0f} GB",
        status="problem" if few else "ok",
        advice="checkpoints of base models take 1.3 GB each; free some or choose another out=" if few else "",
    )
