"""Builds the service that `diptych serve` runs from its options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.detect.listing import list_pictures
from diptych.ensemble import read_predictions
from diptych.errors import ConfigError
from diptych.files import require_file
from diptych.serve.addresses import ADDRESSES, MONITORED
from diptych.serve.app import Web
from diptych.serve.audit import AuditLog, require_folder
from diptych.serve.engine import Engine
from diptych.serve.fetch import Fetcher, checked_hosts
from diptych.serve.given import Words
from diptych.serve.keys import Keys
from diptych.serve.limits import Limits
from diptych.serve.memories import read_memories, read_memories_again
from diptych.serve.metrics import Metrics
from diptych.serve.models import (
    Resident,
    Setup,
    load_model,
    named_models,
    require_used,
    weight_bytes,
)
from diptych.serve.policies import read_again, read_policies
from diptych.serve.review import ReviewQueue
from diptych.serve.service import Service

MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `diptych serve` was told; see its help.

    Args:
        models: folders, or `NAME=FOLDER`.
        pictures: folder of pictures that requests name by their file stem.
        reference: prediction files by model, against whose scores drift is measured.
        fetch_from: hosts from which pictures are fetched; none fetches nothing.
        sample: share of the allowed memes that are marked for people.
        review: number of memes that are kept for people; 0 keeps none.
        memories: folders of judged memes that vote, each for the model that it was made with.
        teachers: the least role that may add to them.
        monitored: metrics have a port of their own, and are not among the other addresses.
    """

    models: Sequence[str]
    policies: Sequence[Path] = ()
    setup: Setup = field(default_factory=Setup)
    keys: Path | None = None
    audit: Path | None = None
    sync: float = 1.0
    pictures: Path | None = None
    reference: Mapping[str, Path] = field(default_factory=dict)
    fetch_from: Sequence[str] = ()
    fetch_plain: bool = False
    sample: float = 0.0
    review: int = 0
    memories: Sequence[Path] = ()
    teachers: str = "reviewer"
    monitored: bool = False
    limits: Limits = field(default_factory=Limits)


def build(
    options: Options,
    *,
    words: Words | None = None,
    engine_of: Callable[[Mapping[str, Resident]], Engine] | None = None,
) -> Web:
    """Load all models, warm them up, and return the application.

    Args:
        engine_of: makes another engine than that of this process; its models are not loaded again.

    Raises:
        ConfigError: an option is impossible, or a model cannot be served.
        FormatError: a file is damaged.
    """
    if not 0 <= options.sample <= 1:
        raise ConfigError(f"--sample-allowed is {options.sample}; expected a share from 0 to 1.")
    if options.review < 0:
        raise ConfigError(f"--review is {options.review}; expected a number of memes, or 0.")
    if options.review and options.audit is None:
        raise ConfigError("--review needs a place for what people decide; add --audit FOLDER.")
    # Everything that is cheap to check comes before gigabytes are loaded.
    hosts = checked_hosts(options.fetch_from)
    keys = Keys(options.keys, rate=options.limits.rate, burst=options.limits.burst)
    sources = named_models(options.models)
    pictures = _pictures(options.pictures)
    if unknown := sorted(options.reference.keys() - sources.keys()):
        raise ConfigError(f"--reference names the model {unknown[0]!r}; served are {', '.join(sources)}.")
    models = [load_model(name, source, options.setup) for name, source in sources.items()]
    require_used(models, options.setup)
    read_policies(options.policies, models)
    read_memories(options.memories, models)
    reference = {
        model.name: read_predictions(options.reference[model.name]).column(model.positive)
        for model in models
        if model.name in options.reference
    }
    audit = None if options.audit is None else AuditLog(require_folder(options.audit), sync=options.sync)
    fetcher = Fetcher(hosts=hosts, plain=options.fetch_plain, most=options.limits.picture) if hosts else None
    named = {model.name: model for model in models}
    engine = Engine(named, limits=options.limits) if engine_of is None else engine_of(named)
    service = Service(
        engine,
        metrics=Metrics(reference={name: np.asarray(column) for name, column in reference.items()}),
        words=words,
        fetch=fetcher,
        picture_of=None if pictures is None else lambda key: _file_of(pictures, key, options.limits),
        audit=audit,
        sample=options.sample,
        teachers=options.teachers,
        review=ReviewQueue(options.review) if options.review else None,
    )

    def load(name: str) -> Resident:
        old = engine.find(name)
        return load_again(old, options, [one for one in engine.models.values() if one is not old])

    shown = [one for one in ADDRESSES if not (options.monitored and one.path == "/metrics")]
    # Replicas have loaded their own.
    return Web(service, tuple(shown), keys=keys, reload=load if engine_of is None else None)


def monitor_of(web: Web) -> Web:
    """What Prometheus and balancers read, as an application of its own; needs no keys."""
    shown = tuple(one for one in ADDRESSES if one.path in MONITORED)
    beside = Web(web.service, shown, log=None)
    beside.jobs = web.jobs
    return beside


def load_again(old: Resident, options: Options, others: Sequence[Resident] = ()) -> Resident:
    """Load the model of the same folder anew; the old one stays until the new one is warm.

    Args:
        others: models of the service.

    Raises:
        ConfigError: there is not the memory for both, the new one answers otherwise, or the old one had a
            policy and there is none for the new one.
        FormatError: the folder has no model any more.
    """
    needed, free = 2 * weight_bytes(old.source), _available()
    if free is not None and needed > free:
        raise ConfigError(f"{old.source} needs {needed} bytes beside the old one; {free} are free.")
    new = load_model(old.name, old.source, options.setup)
    if new.classes != old.classes:
        raise ConfigError(f"{old.source} now scores {new.classes}; the old one scores {old.classes}.")
    read_again(options.policies, old, new, others)
    read_memories_again(options.memories, old, new)
    return new


def _available() -> int | None:
    """Free memory in bytes; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _pictures(folder: Path | None) -> dict[str, Path] | None:
    return None if folder is None else {one.key: Path(one.path) for one in list_pictures(folder)}


def _file_of(pictures: Mapping[str, Path], key: str, limits: Limits) -> bytes | None:
    """The picture of a key. The key is looked up and never joined to a path."""
    path = pictures.get(key)
    if path is None:
        return None
    with open(require_file(path, "a picture"), "rb") as file:
        return file.read(limits.picture + 1)
