"""Train a model; continues where it was stopped."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from diptych.cli import catalog
from diptych.cli.screen import table
from diptych.errors import ConfigError, nearest

VALUED = (
    "--cfg",
    "-c",
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--package",
    "-p",
)
PLAIN = re.compile(r"[\w./\\+\-$%*@?|: ]*", re.ASCII)  # what Hydra takes without quotes
STORE = re.compile(r"features\.(?P<name>[^=.]+)=(?P<place>.*)", re.DOTALL)
CALLS = ("model", "processor", "task", "optim", "schedule", "averaging", "trainer", "data")


def main(argv: Sequence[str]) -> int:
    """Compose the configuration from overrides as Hydra does, then train."""
    if not argv or {"-h", "--help"} & set(argv):
        print(usage())
        return 0
    for job in _compose(argv):
        if code := _run(job):  # a sweep ends with its first failure
            return code
    return 0


@contextmanager
def composer() -> Iterator[Callable[[Sequence[str]], dict[str, Any]]]:
    """Within the block, a function from overrides to the configuration that `main` would train."""
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    def one(words: Sequence[str]) -> dict[str, Any]:
        try:
            return _resolve(compose("train", overrides=_forgiving(words)))
        except MissingConfigException as error:
            raise ConfigError(_missing(str(error.missing_cfg_file), str(error))) from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(f"{_explain(error)} (in {' '.join(words)})") from error

    with initialize_config_module("diptych.conf", version_base="1.3"):
        yield one


class Job(NamedTuple):
    """One configuration, and the overrides that make it; `number` is None outside of sweeps."""

    config: Any
    overrides: list[str]
    number: int | None


def _compose(argv: Sequence[str]) -> list[Job]:
    """Let Hydra compose and nothing more: it prints errors its own way and confuses Fabric's launcher."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    jobs: list[Job] = []

    def keep(config: Any) -> None:
        job = HydraConfig.get()
        number = int(job.job.num) if job.mode == RunMode.MULTIRUN else None
        jobs.append(Job(config, list(job.overrides.task), number))

    with TemporaryDirectory() as folder:  # Hydra leaves a record of every sweep somewhere
        words = [*_forgiving(argv), f"hydra.sweep.dir={folder}"]
        with _hydra(["diptych train", *words]) as hydra_main:
            hydra_main(keep)()
    HydraConfig.instance().cfg = None
    return jobs


def usage() -> str:
    """What `diptych train --help` prints."""
    known = catalog.names("experiment")
    width = max(map(len, known))
    experiments = "\n".join(f"  {name:<{width}}  {catalog.summary('experiment', name)}" for name in known)
    return f"""usage: diptych train experiment=NAME root=FOLDER [key=value ...]
       diptych train model=NAME data=NAME root=FOLDER [key=value ...]

Train a model; the same command again continues where it was stopped.

experiments:
{experiments}

often changed:
  out=runs/mine                 where everything goes (default: runs/NAME/seedN)
  seed=2                        initial weights, order, dropout
  features=FOLDER               feature store (default: ROOT/features); several: features.NAME=FOLDER
  trainer.max_epochs=3  data.batch_size=64  optim.lr=1e-4  model.dropout=0.2
  trainer.precision=bf16-mixed  trainer.devices=2  trainer.strategy=ddp
  weights.model=FILE            start from pretrained weights (also weights.text, weights.image)
  --multirun seed=1,2,3         one run after the other for every combination
  --cfg job                     print the configuration instead of training

`diptych ls` lists all groups; `diptych cp EXPERIMENT` gives you a copy to edit."""


def _run(job: Job) -> int:
    from diptych.recipe import run_recipe

    config = _resolve(job.config)
    if job.number is not None:
        config["out"] = f"{config['out']}-{job.number}"
        print(f"run {job.number}: {' '.join(job.overrides)}")
    # what Fabric starts on further devices is this command
    with _arguments([sys.argv[0], "train", *job.overrides, f"out={config['out']}"]):
        outcome = run_recipe(config)
    if outcome.interrupted:
        print(f"stopped; {outcome.folder} keeps a checkpoint. The same command continues.", file=sys.stderr)
        return 130
    if outcome.fit is None:
        print(f"{outcome.folder} was complete already; nothing to do. (overwrite=true trains it again.)")
    elif not outcome.fit.main:
        return 0
    table(
        "", ["on the validation split", ""], [(n, f"{v:.4f}") for n, v in outcome.metrics.items()], numbers=1
    )
    print(f"bundle: {outcome.folder / 'bundle'}")
    if str(config["task"].get("_target_")).endswith(".Pretrain"):
        print(f"next:   diptych train experiment=... root=... weights.model={outcome.folder}")
    else:
        print(f"next:   diptych predict {outcome.folder}")
    return 0


def _resolve(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        hint = {"root": "; say root=FOLDER, the folder of the data set"}.get(key, f"; say {key}=VALUE")
        raise ConfigError(f"{key} is not given{hint}.") from error
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    return dict(plain)


def _forgiving(argv: Sequence[str]) -> list[str]:
    """Flags first, as Hydra wants them; and `model.dropout=0.2` may name what the YAML leaves out.

    The call that a node stands for knows its parameters and checks them.
    """
    flags: list[str] = []
    overrides: list[str] = []
    stores: dict[str, str] = {}  # `features` is a text by default, below which Hydra finds no keys
    words = iter(argv)
    for word in words:
        if word.startswith("-"):
            flags.append(word)
            if word in VALUED:
                flags.extend(islice(words, 1))
        else:
            open_node = word.partition(".")[0] in CALLS and "." in word.partition("=")[0]
            word = _quoted(word)
            if named := STORE.fullmatch(word):
                stores[named["name"]] = named["place"]
                continue
            overrides.append(f"++{word}" if open_node else word)
    if stores:
        overrides.append(f"features={{{','.join(f'{name}:{place}' for name, place in stores.items())}}}")
    return flags + overrides


def _quoted(word: str) -> str:
    """`root=mémes` with its value in quotes: Hydra's grammar knows few characters outside of them."""
    key, _, value = word.partition("=")
    if PLAIN.fullmatch(value) or value[:1] in "=\"'" or set(value) & set(",[]{}"):
        return word  # Hydra reads lists, sweeps and quotes itself
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


@contextmanager
def _hydra(argv: list[str]) -> Iterator[Callable[[Callable[[Any], None]], Callable[[], None]]]:
    """Hydra's own entry point with its errors in our words."""
    from hydra import main as hydra_main
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints and exits by itself
    try:
        with _arguments(argv):
            yield hydra_main(version_base="1.3", config_path="pkg://diptych.conf", config_name="train")
    except MissingConfigException as error:
        raise ConfigError(_missing(str(error.missing_cfg_file), str(error))) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_explain(error)) from error
    finally:
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def _arguments(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def _missing(name: str, message: str) -> str:
    group, _, option = name.removesuffix(".yaml").partition("/")
    known = catalog.names(group) if (catalog.CONF / group).is_dir() else []
    if not known:
        return message.splitlines()[0]
    return f"there is no {group} {option!r}.{nearest(option, known)} `diptych ls {group}` lists them."


def _explain(error: Exception) -> str:
    """The first line of a Hydra error, with the nearest key where one was mistyped."""
    from hydra.errors import ConfigCompositionException

    lines = [line for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
    text = " ".join(line.strip() for line in lines[:2])
    typed = re.search(r"Could not override '([^'=]+)", text)
    if "group override must be a string" in text:
        text = f"{text}; `diptych ls` lists the names that a group can have."
    if isinstance(error, ConfigCompositionException) and typed:
        text = f"there is no key {typed[1]!r}.{nearest(typed[1], [*catalog.top_level_keys(), *CALLS])}"
        text += " `diptych train --cfg job ...` prints all keys."
    return text
