"""Which policy decides for which model: the one that was made for its checksum."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from diptych.calibrate import Policy
from diptych.data.inputs import file_checksum
from diptych.errors import ConfigError
from diptych.serve.models import Resident

KINDS = (".yaml", ".yml")


def read_policies(paths: Sequence[Path], models: Sequence[Resident]) -> None:
    """Give each policy to the model that it was made for.

    Args:
        paths: files, or folders of files. A folder may hold policies of models that are not served, such as
            that of the next version.

    Raises:
        ConfigError: a file is of no model of the service, or two are of one model.
        FormatError: a file is damaged.
    """
    given: dict[str, Path] = {}
    for path, named in _files(paths):
        policy = Policy.load(path)
        mine = [model for model in models if model.sha256 == policy.model]
        if named and not mine:
            known = ", ".join(f"{model.name} {model.sha256[:12]}" for model in models)
            raise ConfigError(
                f"{path} was made for the model {str(policy.model)[:12]}, which is not served; served are "
                f"{known}. Calibrate the predictions of one of them."
            )
        for model in mine:
            _give(model, path, policy, given)


def read_again(paths: Sequence[Path], old: Resident, new: Resident, others: Sequence[Resident]) -> None:
    """Give a model that was loaded again the policy that was made for it, whatever the file is called.

    Args:
        others: that stay; their files are not read, so that damage to one does not stop this model.

    Raises:
        ConfigError: the old model had a policy and there is none for the new one, or there are two.
        FormatError: a file is damaged.
    """
    kept = {model.policy_file for model in others}
    given: dict[str, Path] = {}
    for path, _ in _files(paths):
        # Of two names of one model, both take its file.
        if path in kept and path != old.policy_file:
            continue
        policy = Policy.load(path)
        if policy.model == new.sha256:
            _give(new, path, policy, given)
    if old.policy is not None and new.policy is None:
        raise ConfigError(
            f"{new.source} is now the model {new.sha256[:12]}, and no file of --policy was made for it; "
            f"{old.policy_file} is of {old.sha256[:12]}. Calibrate the predictions of the new model."
        )


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Files of policies, and whether each was named itself."""
    for path in paths:
        if path.is_dir():
            yield from ((one, False) for one in sorted(path.iterdir()) if one.suffix in KINDS)
        else:
            yield path, True


def _give(model: Resident, path: Path, policy: Policy, given: dict[str, Path]) -> None:
    if model.name in given:
        raise ConfigError(
            f"{given[model.name]} and {path} are both policies of the model {model.name}; give one."
        )
    given[model.name] = path
    model.decide_by(path.stem, file_checksum(path), policy)
    model.policy_file = path
