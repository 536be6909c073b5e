"""Train a model, or resume an interrupted run."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diptych import conf
from diptych.cli.output import table
from diptych.errors import OVERWRITE


def main(argv: Sequence[str]) -> int:
    """Compose the configuration from overrides, then train."""
    if not argv or {"-h", "--help"} & set(argv):
        print(usage())
        return 0
    from diptych.recipe import as_yaml, combinations, compose

    asked = _parser().parse_intermixed_args(list(argv))
    # It is a setting here and an option of the other verbs: people type both.
    asked.words += ["overwrite=true"] * asked.overwrite
    # As written, without what the data decide: `settle` would have to read them.
    if asked.cfg:
        print(as_yaml(asked.words, folder=asked.config_dir, resolve=asked.resolve), end="")
        return 0
    if not asked.multirun:  # without it, `seed=1,2` is an error of Hydra and not a sweep
        return _run(compose(asked.words, folder=asked.config_dir), asked, asked.words)
    for number, words in enumerate(combinations(asked.words)):
        # Composed one by one, so that each run resumes by itself with its own words.
        config = compose(words, folder=asked.config_dir)
        config["out"] = f"{config['out']}-{number}"  # the default names only the seed; other keys may vary
        print(f"run {number}: {' '.join(words)}")
        if code := _run(config, asked, words):  # a sweep ends with its first failure
            return code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diptych train", allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c", choices=("job",))
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    return parser


def usage() -> str:
    """Return the text of `diptych train --help`."""
    known = conf.names("experiment")
    width = max(map(len, known))
    experiments = "\n".join(f"  {name:<{width}}  {conf.summary('experiment', name)}" for name in known)
    return f"""usage: diptych train experiment=NAME root=FOLDER [key=value ...]
       diptych train model=NAME data=NAME root=FOLDER [key=value ...]

Train a model. The same command resumes an interrupted run.

experiments:
{experiments}

frequent settings:
  out=runs/mine                 folder of the run (default: runs/NAME/seedN)
  seed=2                        seed of initial weights, order and dropout
  features=FOLDER               feature store (default: ROOT/features); several: features.NAME=FOLDER
  trainer.max_epochs=3  data.batch_size=64  optim.lr=1e-4  model.dropout=0.2
  trainer.precision=bf16-mixed  trainer.devices=2  trainer.strategy=ddp
  weights.model=FILE            start from pretrained weights (also weights.text, weights.image)
  --multirun seed=1,2,3         one run for every combination, in sequence
  --overwrite                   replace a run that is there (also overwrite=true)
  --config-dir FOLDER           your own YAML files, searched besides those of diptych
  --cfg job                     print the configuration instead of training

`diptych ls` lists all settings; `diptych cp EXPERIMENT` copies an experiment to edit."""


def _run(config: dict[str, Any], asked: argparse.Namespace, words: Sequence[str]) -> int:
    from diptych.recipe import run_recipe
    from diptych.tasks import Pretrain

    folder = [f"--config-dir={asked.config_dir}"] if asked.config_dir else []
    # `out` last: it wins over the words, and a sweep has changed it
    with _arguments([sys.argv[0], "train", *folder, *words, f"out={config['out']}"]):
        outcome = run_recipe(config)
    if outcome.interrupted:
        print(f"stopped; {outcome.folder} keeps a checkpoint. The same command continues.", file=sys.stderr)
        return 130
    if outcome.fit is None:
        print(f"{outcome.folder} is complete; nothing to do. ({OVERWRITE} trains it again.)")
    elif not outcome.fit.main:  # only the first process of a distributed run prints
        return 0
    table(
        "", ["on the validation split", ""], [(n, f"{v:.4f}") for n, v in outcome.metrics.items()], numbers=1
    )
    print(f"bundle: {outcome.folder / 'bundle'}")
    if isinstance(outcome.task, Pretrain):
        print(f"next:   diptych train experiment=... root=... weights.model={outcome.folder}")
    else:
        print(f"next:   diptych predict {outcome.folder}")
    return 0


@contextmanager
def _arguments(argv: list[str]) -> Iterator[None]:
    """Set `sys.argv` to the command of this run.

    For each further device, Fabric starts `sys.argv` as a new process, which must not repeat the whole sweep.
    """
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before
