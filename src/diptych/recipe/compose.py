"""Composition of a run's configuration from overrides such as `optim.lr=1e-4`, with Hydra."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych import conf
from diptych.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

PLAIN = re.compile(r"[\w./\\+\-$%*@?|: ]*", re.ASCII)  # characters that Hydra's grammar allows unquoted
TEMPLATE = re.compile(r"(?!\{\}$)[^,{}\[\]]*\{\}[^,{}\[\]]*")  # a text with a placeholder, such as img/{}.png
STORE = re.compile(r"features\.(?P<name>[^=.]+)=(?P<place>.*)", re.DOTALL)
# nodes that describe a call (`_target_`): every parameter of the call may be set, even if the YAML lacks it
CALLS = ("model", "processor", "task", "optim", "schedule", "averaging", "trainer", "data")


def compose(words: Sequence[str], *, folder: Path | str | None = None) -> dict[str, Any]:
    """Return the configuration for `run_recipe`.

        config = compose(["experiment=hateful_memes/uniter_tiny", "root=memes", "seed=2"])

    Args:
        words: overrides as for `diptych train`, without sweeps.
        folder: folder of the user's YAML files, searched besides those of diptych.

    Raises:
        ConfigError: an unknown key or name (suggests the nearest), a required value is missing, or `folder`
            does not exist.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue

    with _explained(words):
        try:
            config = _composed(words, folder)
            # Plain values from here on: nothing else needs OmegaConf, and files can hold them.
            plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            key = str(error.full_key)
            hint = {"root": "root=FOLDER, the folder of the data set"}.get(key, f"{key}=VALUE")
            raise ConfigError(f"{key} is not given; add {hint}.") from error
    return dict(plain)


def as_yaml(words: Sequence[str], *, folder: Path | str | None = None, resolve: bool = False) -> str:
    """Return the configuration as YAML, with `???` for missing values. Arguments and errors as in `compose`.

    Args:
        resolve: replace `${...}` by values.
    """
    from omegaconf import OmegaConf

    with _explained(words):
        return OmegaConf.to_yaml(_composed(words, folder), resolve=resolve)


def combinations(words: Sequence[str]) -> list[list[str]]:
    """Expand sweeps such as `seed=1,2` into lists of overrides, one list per combination.

    The last sweep varies fastest.

    Raises:
        ConfigError: an override is invalid, or a sweep is not a finite list of values.
    """
    with _explained(words):
        # Not Hydra's multirun, which starts the runs by itself, out of reach of `run_recipe`.
        return [list(combination) for combination in product(*map(_choices, _parsed(words)))]


def _choices(override: "Override") -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: expected a list of values, such as seed=1,2.")
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _parsed(words: Sequence[str]) -> "list[Override]":
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(_overrides(words))


def _composed(words: Sequence[str], folder: Path | str | None) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    overrides = _overrides(words)
    if folder is not None:
        if not Path(folder).is_dir():
            raise ConfigError(f"{folder} does not exist; expected a folder of YAML files.")
        overrides.append(f"hydra.searchpath=[{_quoted(f'file://{Path(folder).absolute()}')}]")
    with initialize_config_module("diptych.conf", version_base="1.3"):
        return hydra_compose("train", overrides=overrides)


def _overrides(words: Sequence[str]) -> list[str]:
    """Translate overrides to Hydra's grammar; all `features.NAME=FOLDER` become one mapping.

    `features` is a string by default, so Hydra would reject keys below it.
    """
    stores = {named["name"]: named["place"] for word in words if (named := STORE.fullmatch(word))}
    overrides = [_forgiving(word) for word in words if not STORE.fullmatch(word)]
    if stores:
        places = ",".join(f"{name}:{_quoted(place)}" for name, place in stores.items())
        overrides.append(f"features={{{places}}}")
    return overrides


def _forgiving(word: str) -> str:
    """Quote the value if necessary, and allow keys of calls that the YAML does not list.

    The call checks its parameters itself, with the nearest name.
    """
    key, equals, value = word.partition("=")
    if key == "lang":  # en,de are the languages of one run; Hydra would make two runs of them
        return word if value[:1] in "=\"'[" else f"{key}{equals}{_quoted(value)}"
    open_node = key.partition(".")[0] in CALLS and "." in key
    # lists, sweeps and quoted values have a meaning in Hydra's grammar and stay as they are
    native = value[:1] in "=\"'" or (set(value) & set(",[]{}") and not TEMPLATE.fullmatch(value))
    plain = PLAIN.fullmatch(value) or native
    # `++` adds the key or overrides it; without it, Hydra rejects keys that the YAML lacks
    return f"{'++' if open_node else ''}{key}{equals}{value if plain else _quoted(value)}"


def _quoted(value: str) -> str:
    """Quote and escape a value for Hydra's grammar."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def _explained(words: Sequence[str]) -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into `ConfigError` with the overrides in question."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_missing(str(error.missing_cfg_file), str(error))) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{_reason(error, words)} (in {' '.join(words)})") from error


def _missing(name: str, message: str) -> str:
    group, _, option = name.removesuffix(".yaml").partition("/")
    known = conf.names(group) if (conf.CONF / group).is_dir() else []
    if not known:
        return message.splitlines()[0]
    return f"there is no {group} {option!r}.{nearest(option, known)} `diptych ls {group}` lists them."


def _reason(error: Exception, words: Sequence[str]) -> str:
    """Return the reason of an error in one line, with the nearest key for a mistyped one."""
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        key = str(cause.full_key)
        close = nearest(key, [*conf.top_level_keys(), *CALLS])
        return f"there is no key {key!r}.{close} `diptych train --cfg job ...` prints all keys."
    # Hydra's message for a group set to null is about its internals
    for word in words:
        group, _, value = word.partition("=")
        if value == "null" and (conf.CONF / group).is_dir():
            return f"{group} is null; expected a name. `diptych ls` lists the names of all groups."
    lines = [line.strip() for line in f"{error}\n{cause or ''}".splitlines() if line.strip()]
    return " ".join(lines[:2])
